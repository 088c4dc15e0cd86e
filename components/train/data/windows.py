"""Which tokens a training step sees: the paper's window sampler.

Every epoch draws one window of `context_length` consecutive tokens per document, at a random offset, and visits the
documents in a random order. Both are pure functions of (seed, epoch, document or position): a resumed run has nothing
to restore, and neither the number of processes nor the micro-batch size changes what is drawn.

The semantics are those of the authors' code (github.com/chaoyi-wu/PMC-LLaMA): the start comes from
`numpy.random.randint(0, length - context)`, so the very last window of a document is never drawn; a document of exactly
`context` tokens gives itself; a shorter one is padded on the right.
"""

import numpy as np
from numpy.typing import NDArray

from components.train.data.corpus import Corpus, Tokens
from components.train.data.order import DocumentOrder, random_bits
from components.train.data.sampler import IGNORED, Extent, Windows

_START = 2  # what a random number is for; `order` has the others


class WindowSampler:
    """Draws windows by (epoch, position in the epoch)."""

    def __init__(
        self,
        corpus: Corpus,
        context: int,
        padding_id: int,
        mask_padding: bool,
        seed: int,
        first_epoch_shards: int | None = None,
    ) -> None:
        """Take what the windows depend on.

        Args:
            corpus: The documents.
            context: Tokens in a window.
            padding_id: Fills windows of short documents.
            mask_padding: Whether padding is left out of the loss.
            seed: Of the run.
            first_epoch_shards: Shards in a block of the first epoch's order; None shuffles all of them at once.
        """
        self.corpus = corpus
        self.context = context
        self.padding_id = padding_id
        self.mask_padding = mask_padding
        self.seed = seed
        self.order = DocumentOrder(seed, corpus.shard_documents, first_epoch_shards)

    @property
    def windows_per_epoch(self) -> int:
        """One of every document."""
        return len(self.corpus)

    def documents(self, epoch: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the documents at these positions of an epoch."""
        return self.order.of(epoch)[positions]

    def shards(self, epoch: int, first: int, last: int) -> NDArray[np.int64]:
        """Shards in which the windows at positions `first` .. `last - 1` of an epoch lie."""
        return np.unique(self.corpus.shards_of(self.documents(epoch, np.arange(first, last))))

    def extent(self, epoch: int, first: int, last: int) -> Extent:
        """What the windows at positions `first` .. `last - 1` of an epoch take."""
        return self.extent_at(epoch, np.arange(first, last))

    def extent_at(self, epoch: int, positions: NDArray[np.int64]) -> Extent:
        """What the windows at these positions of an epoch take."""
        documents = self.documents(epoch, positions)
        lengths = np.minimum(self.corpus.lengths[documents], self.context)
        windows, inside = len(lengths), int(lengths.sum())
        targets = inside - windows if self.mask_padding else windows * (self.context - 1)
        waits = not self.corpus.all_expected and self.corpus.expect(
            self.order.shards_needed(epoch, self.corpus.shards_of(documents))
        )
        return Extent(self.context, targets, windows * self.context - inside, waits)

    def draw(self, epoch: int, positions: NDArray[np.int64], width: int) -> Windows:
        """The windows at these positions of an epoch."""
        pieces, inside = self.pieces(epoch, positions, width)
        tokens = join(pieces, np.arange(len(pieces)), inside, width, self.padding_id).astype(np.int64)
        return Windows(tokens, next_tokens(tokens, inside if self.mask_padding else None))

    def pieces(self, epoch: int, positions: NDArray[np.int64], width: int) -> tuple[list[Tokens], NDArray[np.int64]]:
        """The tokens of the windows at these positions, without padding, as views; and how many each has."""
        documents = self.documents(epoch, positions)
        lengths = self.corpus.lengths[documents]
        starts = window_starts(self.seed, epoch, documents, lengths, width)
        inside = np.minimum(lengths, width)
        return self.corpus.slices(documents, starts, starts + inside), inside


def join(
    pieces: list[Tokens], last_pieces: NDArray[np.int64], inside: NDArray[np.int64], width: int, padding_id: int
) -> Tokens:
    """Put pieces one after the other into windows, still in the shards' narrow type.

    Args:
        pieces: Tokens, in order; used up.
        last_pieces: Number of each window's last piece.
        inside: Tokens in each window.
        width: Places in each window; those after its tokens hold padding.
        padding_id: Fills them.
    """
    if not pieces:
        return np.empty((0, width), dtype=np.uint16)
    padding = np.full(width, padding_id, dtype=pieces[0].dtype)
    for window in np.flatnonzero(inside < width)[::-1]:
        pieces.insert(last_pieces[window] + 1, padding[inside[window] :])
    return np.concatenate(pieces).reshape(len(inside), width)


def next_tokens(tokens: NDArray[np.int64], lengths: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Targets of windows: the token to the right, nothing for the last place.

    Args:
        tokens: Shape (windows, width).
        lengths: Tokens of the document in each window, where its padding does not count in the loss.
    """
    targets = np.empty_like(tokens)
    targets[:, :-1] = tokens[:, 1:]
    targets[:, -1] = IGNORED
    if lengths is not None:
        short = np.flatnonzero(lengths < tokens.shape[1])
        targets[short] = np.where(np.arange(tokens.shape[1]) < lengths[short, None] - 1, targets[short], IGNORED)
    return targets


def window_starts(
    seed: int, epoch: int, documents: NDArray[np.int64], lengths: NDArray[np.int64], context: int
) -> NDArray[np.int64]:
    """First token of each document's window: uniform in 0 .. length - context - 1, or 0 where there is no choice."""
    choices = np.maximum(lengths - context, 1).astype(np.uint64)
    high_bits = random_bits(seed, epoch, _START, documents.astype(np.uint64)) >> np.uint64(32)
    return ((high_bits * choices) >> np.uint64(32)).astype(np.int64)
