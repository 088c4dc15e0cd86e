"""Locality-sensitive hashing: which pairs of MinHash signatures are worth a closer look."""

import numpy as np

# A band shared by thousands of articles is boilerplate or one large family; neighbours in rank order link the family.
_MAX_NEIGHBOURS = 100
_PAIRS_PER_COMPARISON = 50_000  # two gathers of 112 uint32 each: 45 MB


def candidate_pairs(signatures: np.ndarray, bands: int, rows_per_band: int) -> np.ndarray:
    """Find the pairs of rows that agree in all rows of at least one band.

    A pair of Jaccard similarity J is found with probability 1 - (1 - J**rows)**bands (Leskovec, Rajaraman and Ullman,
    Mining of Massive Datasets, ch. 3.4): with 14 bands of 8, 92% at 0.8, 98.8% at 0.85 and 99.96% at 0.9.

    Args:
        signatures: uint32 array of shape (documents, permutations), in an order that does not depend on sharding.
        bands: Number of bands.
        rows_per_band: Permutations in a band.

    Returns:
        int64 array of shape (pairs, 2), first < second, sorted, without repetitions.
    """
    count = len(signatures)
    found = [np.empty(0, dtype=np.int64)]
    for band in range(bands):
        columns = signatures[:, band * rows_per_band : (band + 1) * rows_per_band]
        for first, second in _equal_neighbours(_band_hashes(columns)):
            found.append(first * count + second)
    codes = np.unique(np.concatenate(found))
    return np.stack([codes // max(count, 1), codes % max(count, 1)], axis=1)


def estimated_jaccard(signatures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Estimate the Jaccard similarity of pairs of rows: the share of permutations in which they agree."""
    estimates = np.empty(len(pairs), dtype=np.float64)
    for start in range(0, len(pairs), _PAIRS_PER_COMPARISON):
        part = pairs[start : start + _PAIRS_PER_COMPARISON]
        equal = signatures[part[:, 0]] == signatures[part[:, 1]]
        estimates[start : start + len(part)] = equal.mean(axis=1)
    return estimates


def _band_hashes(columns: np.ndarray) -> np.ndarray:
    """Combine the columns of a band into one uint64 per row; a chance collision only costs a comparison."""
    hashes = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        hashes = (hashes ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _equal_neighbours(hashes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pair each row with the next rows of the same hash, at most `_MAX_NEIGHBOURS` of them."""
    order = np.argsort(hashes, kind="stable")  # stable: equal hashes stay in row order, so first < second
    ordered = hashes[order]
    starts = np.arange(max(len(hashes) - 1, 0))
    pairs = []
    for distance in range(1, _MAX_NEIGHBOURS + 1):
        starts = starts[starts + distance < len(hashes)]
        starts = starts[ordered[starts] == ordered[starts + distance]]
        if not len(starts):
            break
        pairs.append((order[starts], order[starts + distance]))
    return pairs
