"""Locality-sensitive hashing: which pairs of MinHash signatures are worth a closer look.

A signature of 448 bytes is too much to hold for millions of documents. What is held of it are one hash per band, which
finds the pairs, and the low byte of each permutation, which tells how similar a pair is.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from components.preprocess.settings import SIGNATURE_PERMUTATIONS

# A band shared by hundreds of documents is boilerplate or one large family. Its members follow each other in the order
# of the rows, so neighbours link the family to one component: comparing all with all would find no other groups, at a
# cost that grows with the square (50 million pairs for 10,000 copies, 100 times those compared here).
_MAX_NEIGHBOURS = 100
# A hard limit on memory for a corpus that is mostly such families: no further neighbours once a band has that many
# pairs. 16 bands of them take 1.3 GB.
_MAX_PAIRS_PER_BAND = 10_000_000
_PAIRS_PER_COMPARISON = 100_000  # two gathers of 112 bytes each: 22 MB
_CHANCE = 1 / 256  # two different values have the same low byte


@dataclass(frozen=True)
class CompactSignatures:
    """What is held of many signatures; both arrays are filled in place.

    Attributes:
        bands: uint64, shape (bands, documents): a hash of the permutations of each band.
        low: uint8, shape (documents, 112): the low byte of every permutation (b-bit minwise hashing, b = 8; Li and
            Koenig, 2010).
    """

    bands: np.ndarray
    low: np.ndarray
    rows_per_band: int

    @classmethod
    def empty(cls, documents: int, bands: int, rows_per_band: int) -> Self:
        """Make room for some documents; no memory is used before they are put there."""
        low = np.empty((documents, SIGNATURE_PERMUTATIONS), dtype=np.uint8)
        return cls(np.empty((bands, documents), dtype=np.uint64), low, rows_per_band)

    @classmethod
    def of(cls, signatures: np.ndarray, bands: int, rows_per_band: int) -> Self:
        """Compact some signatures."""
        compact = cls.empty(len(signatures), bands, rows_per_band)
        compact.put(0, signatures)
        return compact

    def put(self, start: int, signatures: np.ndarray) -> None:
        """Fill in the signatures (uint32, shape (documents, 112)) of the documents from number `start` on."""
        place = slice(start, start + len(signatures))
        self.low[place] = signatures.astype(np.uint8)  # takes the low byte
        for band, hashes in enumerate(self.bands):
            columns = signatures[:, band * self.rows_per_band : (band + 1) * self.rows_per_band]
            hashes[place] = _band_hashes(columns)


def candidate_pairs(compact: CompactSignatures, rows: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs of documents that agree in all rows of at least one band and look similar enough.

    A pair of Jaccard similarity J is found with probability 1 - (1 - J**rows)**bands (Leskovec, Rajaraman and Ullman,
    Mining of Massive Datasets, ch. 3.4): with 16 bands of 7, 97.7% at 0.8, 99.8% at 0.85 and 99.999% at 0.9.

    Args:
        compact: The signatures of all documents.
        rows: Numbers of the documents to compare, in an order that does not depend on sharding.
        least: Leave out pairs of a lower estimated similarity.

    Returns:
        int32 array of shape (pairs, 2), positions in `rows`, first < second, sorted, without repetitions; and the
        estimated similarity of each pair.
    """
    count = max(len(rows), 1)
    found = np.empty(0, dtype=np.int64)
    for hashes in compact.bands:
        fresh = [found]
        for first, second in _equal_neighbours(hashes[rows]):
            codes = _without(first * count + second, found)
            similar = estimated_jaccard(compact, rows[codes // count], rows[codes % count]) >= least
            fresh.append(codes[similar])
        if len(fresh) > 1:
            found = np.sort(np.concatenate(fresh))  # all of them different: np.unique is slow on such numbers
    pairs = np.stack([found // count, found % count], axis=1).astype(np.int32)
    return pairs, estimated_jaccard(compact, rows[pairs[:, 0]], rows[pairs[:, 1]])


def estimated_jaccard(compact: CompactSignatures, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Estimate the Jaccard similarity of pairs of documents, given by number.

    It is the share of permutations in which the low bytes agree, less what agrees by chance.

    Returns:
        float32 array, one estimate per pair, with a standard error of at most sqrt(p (1 - p) / 112) / (1 - 1/256),
        where p = J + (1 - J) / 256.
    """
    estimates = np.empty(len(first), dtype=np.float32)
    for start in range(0, len(first), _PAIRS_PER_COMPARISON):
        part = slice(start, start + _PAIRS_PER_COMPARISON)
        estimates[part] = np.mean(compact.low[first[part]] == compact.low[second[part]], axis=1)
    return (estimates - np.float32(_CHANCE)) / np.float32(1 - _CHANCE)


def _band_hashes(columns: np.ndarray) -> np.ndarray:
    """Combine the columns of a band into one uint64 per row; a chance collision only costs a comparison."""
    hashes = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        hashes = (hashes ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _equal_neighbours(hashes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pair each row with the next rows of the same hash: at most `_MAX_NEIGHBOURS`, the nearest of all rows first."""
    order = np.argsort(hashes, kind="stable")  # stable: equal hashes stay in row order, so first < second
    ordered = hashes[order]
    starts = np.flatnonzero(ordered[1:] == ordered[:-1])
    pairs, total = [], 0
    for distance in range(1, _MAX_NEIGHBOURS + 1):
        starts = starts[starts + distance < len(hashes)]
        starts = starts[ordered[starts] == ordered[starts + distance]]
        if not len(starts) or total > _MAX_PAIRS_PER_BAND:
            break
        pairs.append((order[starts], order[starts + distance]))
        total += len(starts)
    return pairs


def _without(codes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Leave out the codes that are known already; `known` is sorted."""
    if not len(known):
        return codes
    places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    return codes[known[places] != codes]
