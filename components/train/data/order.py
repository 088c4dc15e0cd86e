"""In which order an epoch visits the documents, and the random numbers behind it.

Every epoch shuffles all documents. The first one may start before all shards have come: it takes the shards in blocks,
drawn at random, and shuffles the documents within each block.

The orders of 5 million documents take 40 MB each (int64), two are kept, and 80 MB more for the second it takes to make
one.
"""

from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

_ORDER, SHARD_STREAM = 1, 3  # what a random number is for: keeps the streams apart


class DocumentOrder:
    """The order of the documents in each epoch: a pure function of the seed, the epoch and the shards' sizes.

    Attributes:
        blocks: Numbers of the shards in each block of the first epoch.
    """

    def __init__(self, seed: int, shard_documents: NDArray[np.int64], first_epoch_shards: int | None = None) -> None:
        """Draw the blocks.

        Args:
            seed: Of the run.
            shard_documents: How many documents each shard holds.
            first_epoch_shards: Most shards in a block; None for a single block.
        """
        shards = len(shard_documents)
        self._seed = seed
        self._documents = int(shard_documents.sum())
        self._shard_documents = shard_documents
        drawn = np.argsort(random_bits(seed, 0, SHARD_STREAM, np.arange(shards, dtype=np.uint64)))
        self.blocks = np.array_split(drawn, -(-shards // (first_epoch_shards or shards)))
        self._block_of_shard = np.empty(shards, dtype=np.int64)
        for number, block in enumerate(self.blocks):
            self._block_of_shard[block] = number
        # Two are kept: a batch of a mixture may hold the end of one epoch and the start of the next.
        self._kept = lru_cache(maxsize=2)(self._order)

    def of(self, epoch: int) -> NDArray[np.int64]:
        """Numbers of all documents in the order in which an epoch visits them."""
        return self._kept(epoch)

    def block_starts(self) -> list[int]:
        """Position in the first epoch at which each block begins."""
        sizes = [int(self._shard_documents[block].sum()) for block in self.blocks]
        return list(accumulate(sizes[:-1], initial=0))

    def shards_needed(self, epoch: int, shards: NDArray[np.int64]) -> NDArray[np.int64]:
        """Shards that should be here for windows from these: in the first epoch all of their blocks."""
        if epoch > 0:
            return np.unique(shards)
        return np.concatenate([self.blocks[block] for block in np.unique(self._block_of_shard[shards])])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch > 0 or len(self.blocks) == 1:
            return document_order(self._seed, epoch, self._documents)
        keys = _order_keys(self._seed, epoch, self._documents)
        ends = np.cumsum(self._shard_documents)
        starts = ends - self._shard_documents
        parts = [np.concatenate([np.arange(starts[shard], ends[shard]) for shard in block]) for block in self.blocks]
        return np.concatenate([documents[np.argsort(keys[documents])] for documents in parts])


def document_order(seed: int, epoch: int, documents: int) -> NDArray[np.int64]:
    """A permutation of `documents` numbers: the order in which an epoch visits them."""
    return np.argsort(_order_keys(seed, epoch, documents))


def _order_keys(seed: int, epoch: int, documents: int) -> NDArray[np.uint64]:
    """What the documents are sorted by: no two are equal, since SplitMix64 maps 64 bits to 64 bits one to one."""
    return random_bits(seed, epoch, _ORDER, np.arange(documents, dtype=np.uint64))


def random_bits(seed: int, epoch: int, stream: int, counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 random bits for each counter, as SplitMix64 gives them from a state keyed by seed, epoch and stream.

    Own code rather than numpy's generators, whose sequences may change between versions (NEP 19): a run must resume
    under another numpy. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    return mix(_key(seed, epoch, stream) + counters * np.uint64(0x9E3779B97F4A7C15))


@lru_cache(maxsize=64)
def _key(*parts: int) -> NDArray[np.uint64]:
    key = np.zeros(1, dtype=np.uint64)
    for part in parts:
        key = mix(key ^ np.uint64(part))
    return key


def mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output for a state that was moved on already."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
