"""The corpus: all token shards of both splits, and an account of every listed article."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from components.common import storage
from components.common.errors import InputError, PipelineError
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest, Shard
from components.preprocess import accounting
from components.preprocess.settings import TokenizeSettings
from components.preprocess.tokenization import split
from components.preprocess.tokenization.tokenize import SAMPLES, SPLITS

FORMAT_VERSION = 2
_COUNTED = 500

_READ_BY_TRAINERS = ("split", "documents", "tokens", "index_sha256")
_SHARED = ("dtype", "vocab_size", "tokenizer_sha256", "eos_id")


def assemble_corpus(
    deduplicated: Manifest,
    token_shards: list[Manifest],
    settings: TokenizeSettings,
    output_root: str,
    contamination: Mapping[str, Any] | None = None,
) -> Manifest:
    """Put the token shards together and prove that no article is missing.

    listed = train + validation + all dropped (filters and duplicates) + rejected.

    Args:
        deduplicated: What `find_duplicates` returned.
        token_shards: One manifest per clean shard, in any order; each holds its train and validation shard.
        settings: What the shards were tokenised with.
        output_root: URI of the artifact store; the manifest is kept there too, in `corpus/<fingerprint>/`.
        contamination: What was found of the benchmarks' test questions, as the manifest is to carry it.

    Returns:
        Manifest of kind "corpus". `extra` holds `dtype`, `vocab_size`, `tokenizer_sha256` and `splits` (shards,
        documents and tokens of each), `contamination`, and for the data card `counts` (licences, languages, years,
        article types, journals), `lengths`, `encoders` and `samples`; `raw_shards` (URIs), `origins` (source, inventory
        or release) and `retracted` (ids left out, or used by choice) tell where the articles come from. Shards without
        a document are left out.

    Raises:
        InputError: A shard is missing or comes from another run or tokenizer, or a split would be empty.
        PipelineError: The account does not add up (a fault of this code).
    """
    shards = sorted((shard for part in token_shards for shard in part.shards), key=lambda shard: shard.name)
    _check_complete(deduplicated, token_shards, shards)
    shared = _shared_facts(shards)
    by_split = {name: [shard for shard in shards if shard.stats["split"] == name and shard.rows] for name in SPLITS}
    _check_splits(by_split)
    splits = {name: _sizes(members) for name, members in by_split.items()}
    full = [shard for members in by_split.values() for shard in members]
    manifest = Manifest(
        kind="corpus",
        fingerprint=fingerprint([[shard.name, shard.sha256] for shard in full], shared, FORMAT_VERSION),
        inputs={"deduplicated": deduplicated.fingerprint, "tokenizer": shared["tokenizer_sha256"]},
        settings=settings.model_dump(),
        shards=[_slim(shard) for shard in full],
        totals=_totals(deduplicated, splits) | _contamination_totals(contamination or {}),
        dropped=dict(accounting.dropped(deduplicated.shards) + Counter(deduplicated.dropped)),
        rejected=deduplicated.rejected,
        extra={
            **shared,
            "splits": splits,
            **_description(full),
            **_origin(deduplicated),
            **({"contamination": dict(contamination)} if contamination else {}),
        },
    )
    _check_account(manifest)
    manifest.save_uri(storage.join(output_root, "corpus", manifest.fingerprint, "manifest.json"))
    return manifest


def _check_complete(deduplicated: Manifest, parts: list[Manifest], shards: list[Shard]) -> None:
    for part in parts:
        if part.inputs.get("deduplicated", deduplicated.fingerprint) != deduplicated.fingerprint:
            raise InputError(
                f"The token shards {part.fingerprint} were made from the documents {part.inputs['deduplicated']}, not "
                f"from {deduplicated.fingerprint}; rerun the tokenise step."
            )
    expected = {f"{name}-{clean.name}" for clean in deduplicated.shards for name in SPLITS}
    names = Counter(shard.name for shard in shards)
    wrong = sorted(expected ^ set(names)) or sorted(name for name, times in names.items() if times > 1)
    if wrong:
        raise InputError(
            f"{len(names)} token shards were given where {len(deduplicated.shards)} clean shards make {len(expected)}; "
            f"missing, unknown or given twice: {', '.join(wrong[:5])}; rerun the tokenise step of these."
        )


def _shared_facts(shards: list[Shard]) -> dict[str, Any]:
    first = {name: shards[0].stats[name] for name in _SHARED}
    for shard in shards:
        for name, value in first.items():
            if shard.stats[name] != value:
                raise InputError(
                    f"{shard.name} has {name} {shard.stats[name]}, but {shards[0].name} has {value}; tokenise all "
                    "shards with the same base model and settings."
                )
    return first


def _check_splits(by_split: dict[str, list[Shard]]) -> None:
    documents = {name: sum(shard.rows for shard in members) for name, members in by_split.items()}
    empty = [name for name, count in documents.items() if not count]
    if empty:
        raise InputError(
            f"Only {sum(documents.values())} document is left, and each split needs one (there is none for "
            f"{' and '.join(empty)}); give more articles, or relax preprocess.filters."
        )


def _sizes(members: list[Shard]) -> dict[str, Any]:
    return {
        "shards": [shard.name for shard in members],
        "documents": sum(shard.rows for shard in members),
        "tokens": sum(shard.stats["tokens"] for shard in members),
    }


def _slim(shard: Shard) -> Shard:
    """Keep what a reader of tokens needs; the rest is summed up in the manifest."""
    return shard.model_copy(update={"stats": {name: shard.stats[name] for name in _READ_BY_TRAINERS}})


def _totals(deduplicated: Manifest, splits: dict[str, dict[str, Any]]) -> dict[str, int | float]:
    sizes = {f"{name}_{unit}": splits[name][unit] for name in SPLITS for unit in ("documents", "tokens")}
    return {
        "listed": deduplicated.totals["listed"],
        "kept": sum(splits[name]["documents"] for name in SPLITS),
        "documents": sum(splits[name]["documents"] for name in SPLITS),
        "tokens": sum(splits[name]["tokens"] for name in SPLITS),
        **sizes,
    }


def _contamination_totals(contamination: Mapping[str, Any]) -> dict[str, int]:
    by_benchmark: dict[str, dict[str, int]] = contamination.get("benchmarks", {})
    return {
        f"test_questions_{what}": sum(counts[what] for counts in by_benchmark.values())
        for what in ("overlapping", "contaminated")
        if by_benchmark
    }


def _description(shards: list[Shard]) -> dict[str, Any]:
    """Sum up what the data card shows of the kept documents."""
    counts: dict[str, Counter[str]] = {}
    lengths: Counter[str] = Counter()
    for shard in shards:
        lengths.update(shard.stats["lengths"])
        for name, values in shard.stats["counts"].items():
            counts.setdefault(name, Counter()).update(values)
    samples = [sample for shard in shards for sample in shard.stats["samples"] if shard.stats["split"] == split.TRAIN]
    return {
        "counts": {name: _largest(counter) for name, counter in counts.items()},
        "lengths": dict(sorted(lengths.items(), key=lambda item: int(item[0]))),
        "encoders": dict(Counter(shard.stats["encoder"] for shard in shards)),
        "samples": heapq.nsmallest(SAMPLES, samples, key=lambda one: (split.position(one["id"]), one["id"])),
    }


def _largest(counter: Counter[str]) -> dict[str, int]:
    """Return the counts, the largest first; of thousands (journals) the small ones are summed up."""
    ordered = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in ordered[_COUNTED:])
    return dict(ordered[:_COUNTED]) | ({f"{len(ordered) - _COUNTED:,} others": rest} if rest else {})


def _origin(deduplicated: Manifest) -> dict[str, Any]:
    """Name what the articles came from: who learned from a paper that is retracted later can be found out by it."""
    stats = [shard.stats for shard in deduplicated.shards]
    return {
        "raw_shards": [each["raw_uri"] for each in stats if each.get("raw_uri")],
        "origins": _distinct(each["origin"] for each in stats if each.get("origin")),
        "retracted": sorted(article_id for each in stats for article_id in each.get("retracted", [])),
    }


def _distinct(origins: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    return [dict(pairs) for pairs in sorted({tuple(sorted(origin.items())) for origin in origins})]


def _check_account(corpus: Manifest) -> None:
    accounted = corpus.totals["kept"] + sum(corpus.dropped.values()) + len(corpus.rejected)
    if accounted != corpus.totals["listed"]:
        raise PipelineError(
            f"{corpus.totals['listed']} articles were listed, but {accounted} are accounted for "
            f"({corpus.totals['kept']} kept, {sum(corpus.dropped.values())} dropped, {len(corpus.rejected)} rejected); "
            "the clean shards do not belong together: delete them and rerun the extraction."
        )
