"""Packed sampling: every token of the corpus once per epoch.

An epoch is one stream: each document after an end token, in the epoch's order of documents, and an end token at the
very end. Windows are cut from it one after the other; the target of a place is the token that follows it in the stream,
so the last place of a window predicts the first of the next. Every token and every document's end is a target exactly
once; only the epoch's last window has padding, which never counts.

In memory are 8 bytes a document and kept epoch (two) besides the order: the documents' places in the stream.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from components.train.data.corpus import Corpus, Tokens
from components.train.data.order import DocumentOrder
from components.train.data.sampler import IGNORED, Extent, Windows
from components.train.data.windows import join


class PackedSampler:
    """Cuts windows from the stream of an epoch."""

    def __init__(
        self,
        corpus: Corpus,
        context: int,
        end_id: int,
        padding_id: int,
        seed: int,
        first_epoch_shards: int | None = None,
    ) -> None:
        """Take what the windows depend on.

        Args:
            corpus: The documents.
            context: Tokens in a window.
            end_id: Joins documents.
            padding_id: Fills the epoch's last window.
            seed: Of the run.
            first_epoch_shards: Shards in a block of the first epoch's order; None shuffles all of them at once.
        """
        self.corpus = corpus
        self.context = context
        self.end_id = end_id
        self.padding_id = padding_id
        self.order = DocumentOrder(seed, corpus.shard_documents, first_epoch_shards)
        self._places = int(corpus.lengths.sum()) + len(corpus)
        self._bounds = lru_cache(maxsize=2)(self._find_bounds)

    @property
    def windows_per_epoch(self) -> int:
        """So many hold all tokens, and an end token before each document."""
        return -(-self._places // self.context)

    def shards(self, epoch: int, first: int, last: int) -> NDArray[np.int64]:
        """Shards in which the windows at positions `first` .. `last - 1` of an epoch lie, and their last target."""
        places = np.array([first * self.context, min(last * self.context, self._places)])
        first_slot, last_slot = self._slots(epoch, places)
        return np.unique(self.corpus.shards_of(self.order.of(epoch)[first_slot : last_slot + 1]))

    def extent(self, epoch: int, first: int, last: int) -> Extent:
        """What the windows at positions `first` .. `last - 1` of an epoch take."""
        start, stop = first * self.context, min(last * self.context, self._places)
        waits = not self.corpus.all_expected and self.corpus.expect(
            self.order.shards_needed(epoch, self.shards(epoch, first, last))
        )
        return Extent(self.context, stop - start, (last - first) * self.context - (stop - start), waits)

    def draw(self, epoch: int, positions: NDArray[np.int64], width: int) -> Windows:
        """The windows at these positions of an epoch; `width` is the context."""
        starts = positions * width
        stops = np.minimum(starts + width, self._places)
        stream = self._cut(epoch, starts, stops + 1, width + 1)
        tokens, targets = stream[:, :-1].astype(np.int64), stream[:, 1:].astype(np.int64)
        for window in np.flatnonzero(stops - starts < width):
            tokens[window, stops[window] - starts[window] :] = self.padding_id
            targets[window, stops[window] - starts[window] :] = IGNORED
        return Windows(tokens, targets)

    def _cut(self, epoch: int, starts: NDArray[np.int64], stops: NDArray[np.int64], width: int) -> Tokens:
        """Places `starts` .. `stops - 1` of an epoch's stream, in rows filled up to `width`."""
        first_slots = self._slots(epoch, starts)
        counts = self._slots(epoch, stops - 1) - first_slots + 1
        after = np.cumsum(counts)
        slots = np.arange(counts.sum()) + np.repeat(first_slots - (after - counts), counts)
        bounds = self._bounds(epoch)
        # In tokens of each slot's document; below 0 the window holds the end token before it, too.
        begins = np.repeat(starts, counts) - bounds[slots] - 1
        ends = np.minimum(np.repeat(stops, counts), bounds[slots + 1]) - bounds[slots] - 1
        documents = self.order.of(epoch).take(slots, mode="clip")  # nothing is read of the one behind the last
        views = self.corpus.slices(documents, np.maximum(begins, 0), ends)
        place_of = np.arange(len(views)) + np.cumsum(begins < 0)
        pieces: list[Tokens] = [np.array([self.end_id], dtype=self.corpus.dtype)] * (len(views) + (begins < 0).sum())
        for place, view in zip(place_of.tolist(), views, strict=True):
            pieces[place] = view
        return join(pieces, place_of[after - 1], stops - starts, width, self.padding_id)

    def _slots(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """In whose slot these places of the stream are: a slot is an end token and the document after it."""
        return np.searchsorted(self._bounds(epoch), places, side="right") - 1

    def _find_bounds(self, epoch: int) -> NDArray[np.int64]:
        """Place of each slot in the stream, of the last end token, and the stream's end."""
        bounds = np.zeros(len(self.corpus) + 2, dtype=np.int64)
        np.cumsum(self.corpus.lengths[self.order.of(epoch)] + 1, out=bounds[1:-1])
        bounds[-1] = bounds[-2] + 1
        return bounds
