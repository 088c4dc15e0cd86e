"""The lists of removed documents, one for each clean shard, and a few examples to judge them by."""

import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.common import storage
from components.common.shards import write_shard
from components.preprocess.clean_shards import open_clean, read_rows
from components.preprocess.deduplication.document_index import DocumentIndex
from components.preprocess.deduplication.threads import for_each

DUPLICATE_ID = "duplicate-id"
EXACT = "exact-duplicate"
NEAR = "near-duplicate"
REASONS = (DUPLICATE_ID, EXACT, NEAR)
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

_THREADS = 8
_EXAMPLES = 5
_EXCERPT_CHARACTERS = 500
_BEFORE_DIFFERENCE = 100


@dataclass(frozen=True)
class Removals:
    """The documents that leave, as columns, the best of them first.

    Attributes:
        documents: Their numbers in the index.
        kept: The number of the document that stays in each one's stead.
        reasons: Places in `REASONS`.
        jaccard: Similarity to the one that stays; NaN where only the ids are equal.
    """

    documents: np.ndarray
    kept: np.ndarray
    reasons: np.ndarray
    jaccard: np.ndarray

    def counts(self) -> dict[str, int]:
        """Count the reasons."""
        return dict(zip(REASONS, np.bincount(self.reasons, minlength=len(REASONS)).tolist(), strict=True))


def write_removals(index: DocumentIndex, removals: Removals, prefix: str) -> dict[str, int]:
    """Write every shard's list of removed rows below `prefix`; return how many rows each shard loses.

    Raises:
        StorageError: The store refuses.
    """
    order = np.argsort(removals.documents)
    cuts = np.searchsorted(removals.documents[order], index.starts)

    def write(shard: int) -> None:
        table = _table(index, removals, order[cuts[shard] : cuts[shard + 1]], int(index.starts[shard]))
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer)
        stats = dict(Counter(table["reason"].to_pylist()))
        content = buffer.getvalue().to_pybytes()
        write_shard(prefix, index.shards[shard].name, {".parquet": content}, len(table), stats)

    for_each(write, range(len(index.shards)), _THREADS, "Writing what leaves", "shards")
    return {shard.name: int(count) for shard, count in zip(index.shards, np.diff(cuts), strict=True)}


def read_removals(prefix: str, shard_name: str) -> np.ndarray:
    """Return the row numbers (int64) of a clean shard that its list names."""
    uri = storage.join(prefix, f"{shard_name}.parquet")
    return pq.read_table(io.BytesIO(storage.read(uri)), columns=["row"])["row"].to_numpy()


def examples(index: DocumentIndex, removals: Removals) -> list[dict[str, Any]]:
    """Show near copies where they first differ, the least similar first: these are the ones to judge."""
    near = np.flatnonzero(removals.reasons == REASONS.index(NEAR))
    shown = near[np.argsort(removals.jaccard[near], kind="stable")[:_EXAMPLES]]
    found = []
    for each in shown.tolist():
        document, kept = int(removals.documents[each]), int(removals.kept[each])
        (title, text), (kept_title, kept_text) = _title_and_text(index, document), _title_and_text(index, kept)
        start = max(0, _shared_start(text, kept_text) - _BEFORE_DIFFERENCE)
        cut = slice(start, start + _EXCERPT_CHARACTERS)
        similarity = float(removals.jaccard[each])
        gone = {"id": index.ids[document].as_py(), "title": title, "text": text[cut], "jaccard": similarity}
        found.append(gone | {"kept_id": index.ids[kept].as_py(), "kept_title": kept_title, "kept_text": kept_text[cut]})
    return found


def _table(index: DocumentIndex, removals: Removals, chosen: np.ndarray, start: int) -> pa.Table:
    documents, similarity = removals.documents[chosen], removals.jaccard[chosen]
    columns = [
        pa.array(documents - start),
        index.ids.take(pa.array(documents)),
        pa.array(REASONS, pa.string()).take(pa.array(removals.reasons[chosen])),
        index.ids.take(pa.array(removals.kept[chosen])),
        pa.array(similarity, mask=np.isnan(similarity)),
    ]
    return pa.table(columns, schema=REMOVED_SCHEMA)


def _title_and_text(index: DocumentIndex, document: int) -> tuple[str, str]:
    shard = int(np.searchsorted(index.starts, document, side="right")) - 1
    with open_clean(index.shards[shard], ["title", "text"]) as parquet:
        row = read_rows(parquet, [document - int(index.starts[shard])], ["title", "text"]).to_pylist()[0]
    return row["title"], row["text"]


def _shared_start(one: str, other: str) -> int:
    """Count the characters up to the first difference."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))
