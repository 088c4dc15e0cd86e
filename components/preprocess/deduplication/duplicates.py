"""Exact and near duplicates over all clean shards: which copies of an article leave the corpus, and why.

The documents are put in one order first, the best before the rest, that depends on nothing but the documents. From then
on a document is its place in that order, the best of a group is its smallest place, and neither the number of shards
nor their order can change the result.
"""

import logging
import tempfile
from typing import Any

import numpy as np
import pyarrow as pa

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest, Shard
from components.preprocess import accounting
from components.preprocess.deduplication.document_index import DocumentIndex, read_index
from components.preprocess.deduplication.lsh import candidate_pairs
from components.preprocess.deduplication.removals import (
    DUPLICATE_ID,
    EXACT,
    NEAR,
    REASONS,
    REMOVED_SCHEMA,
    Removals,
    examples,
    read_removals,
    write_removals,
)
from components.preprocess.deduplication.verify import Candidates, linked, read_candidates
from components.preprocess.settings import DeduplicateSettings
from components.preprocess.tokenization import split

__all__ = ["DUPLICATE_ID", "EXACT", "NEAR", "REMOVED_SCHEMA", "find_duplicates", "removed_rows"]

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
# Four standard errors of the estimate from 112 permutations at a Jaccard of 0.8; loses one true pair in 30,000.
_ESTIMATE_MARGIN = 0.15
_IDS_AT_A_TIME = 100_000


def find_duplicates(
    clean: list[Shard], settings: DeduplicateSettings, output_root: str, limit_rejected: float
) -> Manifest:
    """Find what has to leave the corpus because a better copy of it stays.

    An article id that comes twice is a duplicate; so is a text equal to another's but for case, punctuation and
    spacing, and one whose word 5-grams overlap another's by `settings.jaccard` or more: banded MinHash proposes pairs,
    the true Jaccard similarity of their shingle sets decides. Of each connected group the best stays: published before
    an author's manuscript before a preprint, newer, longer, smaller id.

    Memory: 0.5 kB per document, whatever the number of copies; what is compared of the candidates waits in a scratch
    file in TMPDIR, 8 bytes per word.

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
        StorageError: The store refuses, or TMPDIR is full.
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

    index = read_index(clean, settings)
    removals = _find(index, settings)
    extra = {
        "removed_prefix": prefix,
        "removed": write_removals(index, removals, prefix),
        "examples": examples(index, removals),
        "split_anchors": _split_anchors(index, removals),
    }
    manifest = _manifest(clean, inputs, settings, mark, removals.counts(), extra)
    manifest.save_uri(saved)
    log.info("Of %d documents %d stay; removed: %s", len(index), manifest.totals["kept"], removals.counts())
    return manifest


def removed_rows(deduplicated: Manifest, shard_name: str) -> np.ndarray:
    """Return the row numbers (int64) of a clean shard that are not part of the corpus."""
    return read_removals(deduplicated.extra["removed_prefix"], shard_name)


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
        shards=accounting.slimmed(clean),
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


def _find(index: DocumentIndex, settings: DeduplicateSettings) -> Removals:
    """Group the documents; of each group all but the best leave."""
    everyone = np.arange(len(index))
    same_id = _first_equal(index.id_ranks[index.order])
    places = everyone[same_id == everyone]
    same_text = everyone.copy()
    same_text[places] = places[_first_equal(_codes(index.texts[index.order[places]]))]
    distinct = places[same_text[places] == places]
    log.info("%s documents have an id and a text of their own.", f"{len(distinct):,}")

    least = settings.jaccard - _ESTIMATE_MARGIN
    pairs, estimates = candidate_pairs(index.signatures, index.order[distinct], least)
    compared, members = np.unique(distinct[pairs], return_inverse=True)
    log.info("%s pairs of %s documents are worth a comparison.", f"{len(pairs):,}", f"{len(compared):,}")
    # A file without a name: nothing is left of it, whatever ends this process.
    with tempfile.TemporaryFile(prefix="pmc-") as scratch:
        candidates = read_candidates(index, index.order[compared], scratch)
        same_group = everyone.copy()
        same_group[compared] = compared[linked(members.reshape(-1, 2), estimates, candidates, settings.jaccard)]
        twins = same_text[same_id]  # place -> the document that was compared in its stead
        kept = same_group[twins]
        gone = np.flatnonzero(kept != everyone)
        twins, kept = twins[gone], kept[gone]
        reasons, similarity = np.zeros(len(gone), dtype=np.int8), np.full(len(gone), np.nan)
        by_text = np.flatnonzero(same_id[gone] == gone)
        reasons[by_text], similarity[by_text] = _judge(twins[by_text], kept[by_text], compared, candidates)
    return Removals(index.order[gone], index.order[kept], reasons, similarity)


def _judge(
    twins: np.ndarray, kept: np.ndarray, compared: np.ndarray, candidates: Candidates
) -> tuple[np.ndarray, np.ndarray]:
    """Say why each document leaves, and how similar it is to the one that stays; all are given by place."""
    reasons = np.full(len(twins), REASONS.index(EXACT), dtype=np.int8)
    similarity = np.ones(len(twins))
    linked_only = np.flatnonzero(twins != kept)
    first, second = np.searchsorted(compared, twins[linked_only]), np.searchsorted(compared, kept[linked_only])
    differ = ~candidates.same_words(first, second)
    near = linked_only[differ]
    reasons[near] = REASONS.index(NEAR)
    # Below the threshold where the two are linked only through a third.
    pairs = zip(first[differ].tolist(), second[differ].tolist(), strict=True)
    similarity[near] = [round(candidates.jaccard(one, other), 4) for one, other in pairs]
    return reasons, similarity


def _first_equal(codes: np.ndarray) -> np.ndarray:
    """Return for each element the position of the first one equal to it; the codes are small numbers."""
    first = np.empty(codes.max(initial=-1) + 1, dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    return first[codes]


def _codes(rows: np.ndarray) -> np.ndarray:
    """Give equal rows of two columns the same small number."""
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    ordered = rows[order]
    codes = np.zeros(len(rows), dtype=np.int64)
    codes[order[1:]] = np.cumsum(np.any(ordered[1:] != ordered[:-1], axis=1))
    return codes


def _split_anchors(index: DocumentIndex, removals: Removals) -> dict[str, str]:
    """Find the ids at the two ends of what stays, a part at a time: millions of Python strings would be too much."""
    stays = np.ones(len(index), dtype=bool)
    stays[removals.documents] = False
    ends: list[str] = []
    for start in range(0, len(index), _IDS_AT_A_TIME):
        part = index.ids[start : start + _IDS_AT_A_TIME].filter(pa.array(stays[start : start + _IDS_AT_A_TIME]))
        ends += part.to_pylist()
        ends = list(split.anchors(ends).values()) if ends else []
    return split.anchors(ends)
