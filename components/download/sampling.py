"""Choosing articles by a hash of their ids, so that a larger choice contains a smaller one, whatever else is listed."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import xxhash

_BATCH = 1 << 16


def in_sample(article_id: str, fraction: float) -> bool:
    """Tell whether an article belongs to a sample of this share of all articles."""
    return fraction >= 1 or xxhash.xxh3_64_intdigest(article_id.encode()) < fraction * 2.0**64


def hashes(article_ids: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Return a uint64 hash (xxh3) of each id; a batch at a time, so that millions of ids cost 8 bytes each."""
    return np.fromiter(_hashes(article_ids), dtype=np.uint64, count=len(article_ids))


def chosen(hashed: np.ndarray, fraction: float, most: int | None) -> np.ndarray:
    """Return which of the hashes are chosen, as booleans: the lowest share, and of these at most ``most``."""
    keep = np.ones(len(hashed), dtype=bool) if fraction >= 1 else hashed < np.uint64(fraction * 2.0**64)
    if most is not None and keep.sum() > most:
        keep &= hashed <= np.partition(hashed[keep], most - 1)[most - 1]
    return keep


def _hashes(article_ids: pa.ChunkedArray | pa.Array) -> Iterator[int]:
    digest = xxhash.xxh3_64_intdigest
    for start in range(0, len(article_ids), _BATCH):
        for article_id in article_ids.slice(start, _BATCH).to_pylist():
            yield digest(article_id.encode())
