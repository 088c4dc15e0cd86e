"""Exact and near duplicates over all clean shards: which copies of an article leave the corpus, and why.

The documents are put in one order first, the best before the rest, that depends on nothing but the documents. From then
on a document is its place in that order, the best of a group is its smallest place, and neither the number of shards
nor their order can change the result.
"""

import io
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_bytes
from components.common.manifest import Manifest, Shard
from components.common.progress import track
from components.common.shards import write_shard
from components.preprocess import accounting, split
from components.preprocess.clean_shards import open_clean, read_rows
from components.preprocess.lsh import candidate_pairs, estimated_jaccard
from components.preprocess.settings import SIGNATURE_PERMUTATIONS, DeduplicateSettings
from components.preprocess.signatures import from_arrow, jaccard, normalised, shingles

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
DUPLICATE_ID = "duplicate-id"
EXACT = "exact-duplicate"
NEAR = "near-duplicate"
REMOVED_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("article_id", pa.string()),
        ("reason", pa.string()),
        ("kept_id", pa.string()),
        ("jaccard", pa.float64()),
    ]
)
"""A shard's list of removed documents; `row` counts within the clean shard, `jaccard` is the similarity to the kept
document (null where only the ids are equal)."""

_PREPRINT_TYPE = r"^(preprint|working-paper)$"
_PREPRINT_SERVER = r"^(arxiv|biorxiv|medrxiv|chemrxiv|psyarxiv|research square|ssrn|authorea|preprints)\b"
# Four standard errors of the estimate from 112 permutations at a Jaccard of 0.8; loses one true pair in 30,000.
_ESTIMATE_MARGIN = 0.15
_INDEX_COLUMNS = ["article_id", "sha256", "year", "article_type", "journal", "characters", "signature"]
_TEXT_COLUMNS = ["title", "text"]
_EXAMPLES = 5
_EXCERPT_CHARACTERS = 500
_BEFORE_DIFFERENCE = 100


@dataclass(frozen=True)
class _Documents:
    """Every document of the clean shards, the best first; `table` and `signatures` have the same order."""

    table: pa.Table
    signatures: np.ndarray
    shards: list[Shard]


@dataclass(frozen=True)
class _Candidate:
    """What is kept of a text that was read to compare it."""

    shingles: np.ndarray
    words_sha256: str


@dataclass(frozen=True)
class _Removal:
    place: int
    kept: int
    reason: str
    jaccard: float | None


def find_duplicates(
    clean: list[Shard], settings: DeduplicateSettings, output_root: str, limit_rejected: float
) -> Manifest:
    """Find what has to leave the corpus because a better copy of it stays.

    An article id that comes twice is a duplicate; so is a text equal to another's but for case, punctuation and
    spacing, and one whose word 5-grams overlap another's by `settings.jaccard` or more: banded MinHash proposes pairs,
    the true Jaccard similarity of their shingle sets decides. Of each connected group the best stays: published before
    preprint, newer, longer, smaller id. Memory: 0.5 kB per document, and 40 kB per near-duplicate candidate.

    Args:
        clean: All clean shards, in any order; their stats account for what the extraction left out.
        settings: What counts as a copy.
        output_root: URI of the artifact store.
        limit_rejected: Largest share of the listed articles that may have been unreadable.

    Returns:
        Manifest of kind "deduplicated": the clean shards again, sorted by name, and what is dropped of them.
        `extra["removed_prefix"]` holds each shard's list of removed rows (`removed_rows` reads it).

    Raises:
        InputError: Too many articles were rejected, none is left, or a shard cannot be read.
    """
    clean = sorted(clean, key=lambda shard: shard.name)
    accounting.check_rejected(clean, limit_rejected)
    accounting.check_not_empty(clean)
    inputs = {shard.name: shard.sha256 for shard in clean}
    if len(inputs) < len(clean):
        raise InputError(f"Two of the {len(clean)} clean shards have the same name; give every shard its own.")
    mark = fingerprint(inputs, settings.model_dump(), FORMAT_VERSION)
    prefix = storage.join(output_root, "deduplicated", mark)
    saved = storage.join(prefix, "manifest.json")
    if storage.exists(saved):
        log.info("The duplicates of these %d shards are known already: %s", len(clean), saved)
        # Only what depends on the texts is taken over: where the shards lie may have changed since.
        known = Manifest.load_uri(saved)
        return _manifest(clean, inputs, settings, mark, known.dropped, known.extra | {"removed_prefix": prefix})

    documents = _read_documents(clean)
    removals, examples = _find(documents, settings)
    counts = _write_removals(documents, removals, prefix)
    dropped = dict.fromkeys((DUPLICATE_ID, EXACT, NEAR), 0) | Counter(one.reason for one in removals)
    gone = np.zeros(documents.table.num_rows, dtype=bool)
    gone[[one.place for one in removals]] = True
    extra = {
        "removed_prefix": prefix,
        "removed": counts,
        "examples": examples,
        "split_anchors": split.anchors(documents.table["article_id"].filter(pa.array(~gone)).to_pylist()),
    }
    manifest = _manifest(clean, inputs, settings, mark, dropped, extra)
    manifest.save_uri(saved)
    log.info("Of %d documents %d stay; removed: %s", documents.table.num_rows, manifest.totals["kept"], dropped)
    return manifest


def removed_rows(deduplicated: Manifest, shard_name: str) -> np.ndarray:
    """Return the row numbers (int64) of a clean shard that are not part of the corpus."""
    uri = storage.join(deduplicated.extra["removed_prefix"], f"{shard_name}.parquet")
    return pq.read_table(io.BytesIO(storage.read(uri)), columns=["row"])["row"].to_numpy()


def _manifest(
    clean: list[Shard],
    inputs: dict[str, str],
    settings: DeduplicateSettings,
    mark: str,
    dropped: dict[str, int],
    extra: dict[str, Any],
) -> Manifest:
    rows, rejected = sum(shard.rows for shard in clean), accounting.rejected(clean)
    return Manifest(
        kind="deduplicated",
        fingerprint=mark,
        inputs=inputs,
        settings=settings.model_dump(),
        shards=clean,
        totals={
            "listed": accounting.listed(clean),
            "clean": rows,
            "removed": sum(dropped.values()),
            "kept": rows - sum(dropped.values()),
        },
        dropped=dropped,
        rejected=rejected,
        extra=extra,
    )


def _read_documents(clean: list[Shard]) -> _Documents:
    tables, signatures = [], np.empty((sum(shard.rows for shard in clean), SIGNATURE_PERMUTATIONS), dtype=np.uint32)
    start = 0
    for number, shard in enumerate(track(clean, len(clean), "Reading signatures", "shards")):
        with open_clean(shard, _INDEX_COLUMNS) as parquet:
            table = parquet.read(_INDEX_COLUMNS)
        signatures[start : start + shard.rows] = from_arrow(table["signature"])
        start += shard.rows
        tables.append(
            table.drop_columns(["signature"])
            .append_column("shard", pa.array(np.full(shard.rows, number, dtype=np.int32)))
            .append_column("row", pa.array(np.arange(shard.rows)))
        )
    documents = pa.concat_tables(tables)
    order = _best_first(documents)
    # What the ranking alone needed is dropped; 64-digit hashes and ids of millions of documents are kept.
    slim = documents.select(["article_id", "sha256", "shard", "row"]).take(pa.array(order))
    return _Documents(slim, signatures[order], clean)


def _best_first(documents: pa.Table) -> np.ndarray:
    preprint = pc.or_(
        pc.match_substring_regex(pc.utf8_lower(documents["article_type"]), _PREPRINT_TYPE),
        pc.match_substring_regex(pc.utf8_lower(documents["journal"]), _PREPRINT_SERVER),
    )
    # shard and row only decide between documents with the same id and the same text.
    keys = [(key, "ascending") for key in ("article_id", "sha256", "shard", "row")]
    ranking = [("preprint", "ascending"), ("year", "descending"), ("characters", "descending"), *keys]
    return pc.sort_indices(documents.append_column("preprint", preprint), sort_keys=ranking).to_numpy()


def _find(documents: _Documents, settings: DeduplicateSettings) -> tuple[list[_Removal], list[dict[str, Any]]]:
    """Group the documents; return who leaves, by place, and a few examples."""
    everyone = np.arange(documents.table.num_rows)
    same_id = _first_equal(documents.table["article_id"])
    places = everyone[same_id == everyone]
    same_text = everyone.copy()
    same_text[places] = places[_first_equal(documents.table["sha256"].take(pa.array(places)))]

    distinct = places[same_text[places] == places]
    pairs = distinct[candidate_pairs(documents.signatures[distinct], settings.bands, settings.rows_per_band)]
    estimates = estimated_jaccard(documents.signatures, pairs)
    pairs = pairs[estimates >= settings.jaccard - _ESTIMATE_MARGIN]
    candidates = _read_candidates(documents, np.unique(pairs))
    same_group = _connect(pairs, candidates, settings.jaccard, len(everyone))

    twins = same_text[same_id]  # place -> the document that was compared in its stead
    kept = same_group[twins]
    removals = [
        _removal(place, int(kept[place]), int(twins[place]), bool(same_id[place] != place), candidates)
        for place in np.flatnonzero(kept != everyone).tolist()
    ]
    return removals, _examples(documents, removals)


def _first_equal(column: pa.ChunkedArray) -> np.ndarray:
    """Return for each element the position of the first one equal to it."""
    codes = column.combine_chunks().dictionary_encode().indices.to_numpy()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    return first[inverse]


def _connect(pairs: np.ndarray, candidates: dict[int, _Candidate], threshold: float, count: int) -> np.ndarray:
    """Join the pairs that are truly similar; return for each place the smallest place of its group."""
    parents = np.arange(count)

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = place = parents[parents[place]]
        return int(place)

    for first, second in track(pairs.tolist(), len(pairs), "Comparing texts", "pairs"):
        one, other = root(first), root(second)
        # Already in one group: the comparison could not change anything.
        if one != other and _similarity(candidates[first], candidates[second]) >= threshold:
            parents[max(one, other)] = min(one, other)
    return np.array([root(place) for place in range(count)], dtype=np.int64) if len(pairs) else parents


def _similarity(one: _Candidate, other: _Candidate) -> float:
    return 1.0 if one.words_sha256 == other.words_sha256 else jaccard(one.shingles, other.shingles)


def _removal(place: int, kept: int, twin: int, id_again: bool, candidates: dict[int, _Candidate]) -> _Removal:
    if id_again:
        return _Removal(place, kept, DUPLICATE_ID, None)
    if twin == kept or candidates[twin].words_sha256 == candidates[kept].words_sha256:
        return _Removal(place, kept, EXACT, 1.0)
    # Below the threshold where the two are linked only through a third.
    return _Removal(place, kept, NEAR, round(jaccard(candidates[twin].shingles, candidates[kept].shingles), 4))


def _read_candidates(documents: _Documents, places: np.ndarray) -> dict[int, _Candidate]:
    return {
        place: _Candidate(shingles(text), sha256_bytes(normalised(text).encode(errors="surrogatepass")))
        for place, _, text in _texts(documents, places.tolist())
    }


def _texts(documents: _Documents, places: list[int]) -> Iterator[tuple[int, str, str]]:
    """Yield place, title and text of some documents, shard by shard."""
    rows_of = defaultdict(list)
    shards, rows = documents.table["shard"].to_numpy(), documents.table["row"].to_numpy()
    for place in places:
        rows_of[int(shards[place])].append((int(rows[place]), place))
    for number in track(sorted(rows_of), len(rows_of), "Reading texts", "shards"):
        wanted = sorted(rows_of[number])
        with open_clean(documents.shards[number], _TEXT_COLUMNS) as parquet:
            table = read_rows(parquet, [row for row, _ in wanted], _TEXT_COLUMNS)
        yield from zip(
            [place for _, place in wanted], *(table[name].to_pylist() for name in _TEXT_COLUMNS), strict=True
        )


def _examples(documents: _Documents, removals: list[_Removal]) -> list[dict[str, Any]]:
    """Show near copies where they first differ, the least similar first: these are the ones to judge."""
    near = sorted((one for one in removals if one.reason == NEAR), key=lambda one: (one.jaccard, one.place))
    shown = near[:_EXAMPLES]
    places = sorted({place for one in shown for place in (one.place, one.kept)})
    found = {place: (title, text) for place, title, text in _texts(documents, places)}
    names = documents.table["article_id"]
    examples = []
    for one in shown:
        (title, text), (kept_title, kept_text) = found[one.place], found[one.kept]
        start = max(0, _shared_start(text, kept_text) - _BEFORE_DIFFERENCE)
        cut = slice(start, start + _EXCERPT_CHARACTERS)
        dropped = {"id": names[one.place].as_py(), "title": title, "text": text[cut], "jaccard": one.jaccard}
        kept = {"kept_id": names[one.kept].as_py(), "kept_title": kept_title, "kept_text": kept_text[cut]}
        examples.append(dropped | kept)
    return examples


def _shared_start(one: str, other: str) -> int:
    """Count the characters up to the first difference."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


def _write_removals(documents: _Documents, removals: list[_Removal], prefix: str) -> dict[str, int]:
    """Write every shard's list of removed rows; return how many rows each shard loses."""
    table = documents.table
    names = table["article_id"].to_pylist() if removals else []
    shards, rows = table["shard"].to_numpy(), table["row"].to_numpy()
    lists: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for one in removals:
        line = {"row": int(rows[one.place]), "article_id": names[one.place], "reason": one.reason}
        lists[int(shards[one.place])].append(line | {"kept_id": names[one.kept], "jaccard": one.jaccard})
    for number, shard in enumerate(documents.shards):
        lines = sorted(lists[number], key=lambda line: line["row"])
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(lines, schema=REMOVED_SCHEMA), buffer)
        stats = dict(Counter(line["reason"] for line in lines))
        write_shard(prefix, shard.name, {".parquet": buffer.getvalue().to_pybytes()}, len(lines), stats)
    return {shard.name: len(lists[number]) for number, shard in enumerate(documents.shards)}
