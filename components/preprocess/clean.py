"""A raw manifest to a clean manifest: where a shard's text goes, and the account of its articles."""

from collections import Counter
from typing import Any

from components.common import storage
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest, Rejected, Shard
from components.preprocess.decontamination.decontaminate import Decontaminator
from components.preprocess.decontamination.question_index import TEST
from components.preprocess.extract import FORMAT_VERSION, extract_shard
from components.preprocess.settings import PreprocessSettings


def clean_shard(raw: Manifest, settings: PreprocessSettings, output_root: str, benchmarks: Manifest) -> Manifest:
    """Turn the raw shard of a manifest into clean text that holds no test question.

    Args:
        raw: Manifest of kind ``raw`` with one shard, as the download makes it.
        settings: The recipe's preprocess section; ``extract``, ``filters`` and ``decontaminate`` matter here.
        output_root: The store's root URI.
        benchmarks: What the run evaluates; its test questions are kept out.

    Returns:
        Manifest of kind ``clean``; listed = kept + all dropped + rejected, those included that the download left out or
        rejected.

    Raises:
        InputError: The raw shard is damaged.
        StorageError: The store cannot be read or written.
    """
    shaping = settings.model_dump(mode="json", include={"extract", "filters", "decontaminate"})
    questions = {shard.name: shard.sha256 for shard in benchmarks.shards if shard.name.endswith(TEST)}
    name = fingerprint("clean", FORMAT_VERSION, raw.fingerprint, shaping, questions)
    prefix = storage.join(output_root, "clean", name)
    decontaminator = Decontaminator.of(benchmarks, settings.decontaminate)
    shards = [
        _after_download(
            extract_shard(shard, prefix, settings.extract, settings.filters, settings.workers, decontaminator), raw
        )
        for shard in raw.shards
    ]
    return Manifest(
        kind="clean",
        fingerprint=name,
        inputs={"raw": raw.fingerprint, "test_questions": fingerprint(questions)},
        settings=shaping,
        shards=shards,
        totals={"listed": _sum(shards, "listed"), "kept": _sum(shards, "kept"), "words": _sum(shards, "words")},
        dropped=_dropped(shards),
        rejected=[Rejected.model_validate(item) for shard in shards for item in shard.stats["rejected"]],
    )


def _after_download(shard: Shard, raw: Manifest) -> Shard:
    """Count the articles that never reached the raw shard among those of the clean one, and name the raw shard."""
    rejected = [item.model_dump() for item in raw.rejected]
    dropped = Counter(raw.dropped) + Counter(shard.stats["dropped"])
    stats = {
        **shard.stats,
        "listed": shard.stats["listed"] + len(rejected) + sum(raw.dropped.values()),
        "dropped": dict(sorted(dropped.items())),
        "rejected": [*rejected, *shard.stats["rejected"]],
        "raw_uri": raw.shards[0].uri,
        "retracted": raw.extra.get("retracted", []),
        "origin": raw.extra.get("origin", {}),
    }
    return shard.model_copy(update={"stats": stats})


def _sum(shards: list[Shard], key: str) -> int:
    return sum(int(shard.stats[key]) for shard in shards)


def _dropped(shards: list[Shard]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for shard in shards:
        reasons: dict[str, Any] = shard.stats["dropped"]
        for reason, count in reasons.items():
            counts[reason] = counts.get(reason, 0) + count
    return counts
