"""Which tokens a training step sees: the paper's window sampler.

Every epoch draws one window of `context_length` consecutive tokens per document, at a random offset, and visits the
documents in a random order. Both are pure functions of (seed, epoch, document or position): a resumed run has nothing
to restore, and neither the number of processes nor the micro-batch size changes what is drawn.

The semantics are those of the authors' code (github.com/chaoyi-wu/PMC-LLaMA): the start comes from
`numpy.random.randint(0, length - context)`, so the very last window of a document is never drawn; a document of exactly
`context` tokens gives itself; a shorter one is padded on the right.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.train.corpus import Corpus

_ORDER, _START = 1, 2  # what a random number is for: keeps the two streams apart


@dataclass(frozen=True)
class WindowBatch:
    """Windows of one step.

    Attributes:
        tokens: int64, shape (windows, context).
        lengths: int64, shape (windows,): tokens of the document in each window; the rest is padding.
    """

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]


class WindowSampler:
    """Draws windows by (epoch, position in the epoch)."""

    def __init__(self, corpus: Corpus, context: int, padding_id: int, seed: int) -> None:
        """Take the documents, the tokens in a window, the id that fills short ones, and the run's seed."""
        self.corpus = corpus
        self.context = context
        self.padding_id = padding_id
        self.seed = seed
        self._order_of: tuple[int, NDArray[np.int64]] | None = None

    def documents(self, epoch: int, first: int, last: int) -> NDArray[np.int64]:
        """Numbers of the documents at positions `first` .. `last - 1` of an epoch."""
        if self._order_of is None or self._order_of[0] != epoch:
            self._order_of = (epoch, document_order(self.seed, epoch, len(self.corpus)))
        return self._order_of[1][first:last]

    def windows(self, epoch: int, documents: NDArray[np.int64]) -> WindowBatch:
        """The windows that an epoch draws from these documents."""
        lengths = self.corpus.lengths[documents]
        starts = window_starts(self.seed, epoch, documents, lengths, self.context)
        inside = np.minimum(lengths, self.context)
        columns = np.arange(self.context)
        # Columns past a short document's end read its last token instead, and are overwritten with padding.
        offsets = starts[:, None] + np.minimum(columns[None, :], inside[:, None] - 1)
        tokens = self.corpus.gather(documents, offsets)
        tokens[columns[None, :] >= inside[:, None]] = self.padding_id
        return WindowBatch(tokens, inside)


def document_order(seed: int, epoch: int, documents: int) -> NDArray[np.int64]:
    """A permutation of `documents` numbers: the order in which an epoch visits them."""
    keys = random_bits(seed, epoch, _ORDER, np.arange(documents, dtype=np.uint64))
    return np.argsort(keys, kind="stable")


def window_starts(
    seed: int, epoch: int, documents: NDArray[np.int64], lengths: NDArray[np.int64], context: int
) -> NDArray[np.int64]:
    """First token of each document's window: uniform in 0 .. length - context - 1, or 0 where there is no choice."""
    choices = np.maximum(lengths - context, 1).astype(np.uint64)
    high_bits = random_bits(seed, epoch, _START, documents.astype(np.uint64)) >> np.uint64(32)
    return ((high_bits * choices) >> np.uint64(32)).astype(np.int64)


def random_bits(seed: int, epoch: int, stream: int, counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 random bits for each counter, as SplitMix64 gives them from a state keyed by seed, epoch and stream.

    Own code rather than numpy's generators, whose sequences may change between versions (NEP 19): a run must resume
    under another numpy. Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    key = np.zeros(1, dtype=np.uint64)
    for part in (seed, epoch, stream):
        key = _mix(key ^ np.uint64(part))
    return _mix(key + counters * np.uint64(0x9E3779B97F4A7C15))


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
