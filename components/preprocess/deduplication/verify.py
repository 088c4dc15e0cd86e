"""Verifying candidates: the true similarity of two texts, and the groups that the similar ones form.

The shingles of a text take about 30 kB, and there can be hundreds of thousands of candidates: they wait in a scratch
file, so that memory does not grow with them.
"""

import os
import tempfile
import threading
from dataclasses import dataclass
from typing import IO, Self

import numpy as np

from components.common.errors import StorageError
from components.preprocess.clean_shards import open_clean, read_groups
from components.preprocess.deduplication.document_index import DocumentIndex
from components.preprocess.deduplication.signatures import (
    DIGEST_BYTES,
    jaccard,
    shingles_of,
    word_hashes,
    words_digest_of,
)
from components.preprocess.deduplication.threads import for_each

_THREADS = 4  # each holds the texts of one row group
_PAIRS_PER_ROUND = 20_000


class Candidates:
    """The documents whose texts were read to compare them, numbered from 0 on.

    Attributes:
        documents: Their numbers in the index.
        digests: uint8, shape (candidates, 16): equal for texts of the same words.
        counts: How many shingles each has.
    """

    def __init__(self, documents: np.ndarray, scratch: IO[bytes]) -> None:
        """Make room for the candidates; their shingles go to the file `scratch`."""
        self.documents = documents
        self.digests = np.zeros((len(documents), DIGEST_BYTES), dtype=np.uint8)
        self.counts = np.zeros(len(documents), dtype=np.int64)
        self._places = np.zeros(len(documents), dtype=np.int64)
        self._scratch = scratch
        self._end = 0
        self._lock = threading.Lock()

    def put(self, candidate: int, text: str) -> None:
        """Keep what is compared of a text; several threads may do so."""
        words = word_hashes(text)
        shingles = shingles_of(words)
        with self._lock:
            place, self._end = self._end, self._end + shingles.nbytes
        self._write(shingles, place)
        self.digests[candidate] = np.frombuffer(words_digest_of(words), dtype=np.uint8)
        self.counts[candidate], self._places[candidate] = len(shingles), place

    def shingles(self, candidate: int) -> np.ndarray:
        """Return the sorted shingles of a candidate."""
        size = int(self.counts[candidate]) * 8
        return np.frombuffer(os.pread(self._scratch.fileno(), size, int(self._places[candidate])), dtype=np.uint64)

    def same_words(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Tell for pairs of candidates whether their texts have the same words."""
        same: np.ndarray = np.all(self.digests[first] == self.digests[second], axis=1)
        return same

    def jaccard(self, first: int, second: int) -> float:
        """Return the true Jaccard similarity of the shingles of two candidates; 1.0 for texts of the same words."""
        if np.array_equal(self.digests[first], self.digests[second]):
            return 1.0
        return jaccard(self.shingles(first), self.shingles(second))

    def reaches(self, first: int, second: int, threshold: float) -> bool:
        """Tell whether the true similarity of two candidates is at least that high."""
        fewer, more = sorted((int(self.counts[first]), int(self.counts[second])))
        # No two sets can be more similar than their sizes: that spares the reading of most that are not.
        return (not more or fewer >= threshold * more) and self.jaccard(first, second) >= threshold

    def _write(self, shingles: np.ndarray, place: int) -> None:
        try:
            data = memoryview(shingles.tobytes())
            while data:
                written = os.pwrite(self._scratch.fileno(), data, place)
                data, place = data[written:], place + written
        except OSError as error:
            raise StorageError(
                f"The shingles of {len(self.documents):,} candidates do not fit into {tempfile.gettempdir()} "
                f"({error.strerror} after {self._end / 1e9:.1f} GB); set TMPDIR to a place with more room."
            ) from error


def read_candidates(index: DocumentIndex, documents: np.ndarray, scratch: IO[bytes]) -> Candidates:
    """Read the texts of some documents, once each; row groups without any of them are not read.

    Args:
        index: All documents.
        documents: Numbers of the candidates, without repetitions.
        scratch: A file for what is compared of them, 8 bytes per word.

    Raises:
        InputError: A shard cannot be read.
        StorageError: The store refuses, or the scratch file's disk is full.
    """
    candidates = Candidates(documents, scratch)
    by_number = np.argsort(documents)
    cuts = np.searchsorted(documents[by_number], index.starts)

    def read(shard: int) -> None:
        members = by_number[cuts[shard] : cuts[shard + 1]]
        rows = (documents[members] - index.starts[shard]).tolist()
        with open_clean(index.shards[shard], ["text"]) as parquet:
            texts = (text.as_py() for table in read_groups(parquet, rows, ["text"]) for text in table["text"])
            for candidate, text in zip(members.tolist(), texts, strict=True):
                candidates.put(candidate, text)

    for_each(read, np.flatnonzero(np.diff(cuts)).tolist(), _THREADS, "Reading texts", "shards")
    return candidates


def linked(pairs: np.ndarray, estimates: np.ndarray, candidates: Candidates, threshold: float) -> np.ndarray:
    """Join the pairs that are truly similar.

    Which pairs are compared first cannot change the groups, but it saves time: the likely ones join a large group
    soon, and a pair within one group needs no comparison.

    Args:
        pairs: Pairs of candidates, shape (pairs, 2).
        estimates: How similar each pair seems.
        candidates: What is compared.
        threshold: Least true similarity of a pair that is joined.

    Returns:
        int64 array: for each candidate the smallest candidate of its group.
    """
    groups = _Groups.of(len(candidates.documents))
    order = np.argsort(-estimates, kind="stable")
    for start in range(0, len(order), _PAIRS_PER_ROUND):
        part = pairs[order[start : start + _PAIRS_PER_ROUND]]
        roots = groups.roots()
        for first, second in part[roots[part[:, 0]] != roots[part[:, 1]]].tolist():
            if groups.root(first) != groups.root(second) and candidates.reaches(first, second, threshold):
                groups.join(first, second)
    return groups.roots()


@dataclass(frozen=True)
class _Groups:
    """Disjoint sets of numbers; the smallest of a set is its root."""

    parents: np.ndarray

    @classmethod
    def of(cls, count: int) -> Self:
        return cls(np.arange(count))

    def join(self, first: int, second: int) -> None:
        one, other = self.root(first), self.root(second)
        self.parents[max(one, other)] = min(one, other)

    def root(self, member: int) -> int:
        while (parent := int(self.parents[member])) != member:
            self.parents[member] = self.parents[parent]  # a shorter way for the next one who asks
            member = parent
        return member

    def roots(self) -> np.ndarray:
        while not np.array_equal(above := self.parents[self.parents], self.parents):
            self.parents[:] = above
        return self.parents.copy()
