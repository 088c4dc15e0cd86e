"""Mixed sampling: the paper's windows, from several corpora by weight.

An epoch is one pass over the first source, the run's own corpus, with as many windows of the others as their weights
ask for beside it. The others run through epochs of their own, whatever the run's: every document gives one window
before any gives two.

Which source a position belongs to is the same in every epoch: a source with n of the windows has its k-th at the time
(k + 1/2) / n of the epoch, and the positions follow these times. So in any stretch of an epoch a source has its share
to within about one window with two sources, and half a window more for each further one.

In memory are 10 bytes a window of an epoch, besides the sources' own orders.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from components.train.data.corpus import Corpus, Tokens
from components.train.data.order import random_bits
from components.train.data.sampler import Extent, Windows
from components.train.data.windows import WindowSampler, join, next_tokens

_SOURCE = 4  # what a random number is for; `order` has the others


class MixedSampler:
    """Draws windows of several corpora."""

    def __init__(
        self,
        corpora: Sequence[Corpus],
        weights: Sequence[float],
        context: int,
        padding_id: int,
        mask_padding: bool,
        seed: int,
        first_epoch_shards: int | None = None,
    ) -> None:
        """Take what the windows depend on.

        Args:
            corpora: The sources, the run's own first.
            weights: Of each source; only their ratios matter.
            context: Tokens in a window.
            padding_id: Fills windows of short documents.
            mask_padding: Whether padding is left out of the loss.
            seed: Of the run.
            first_epoch_shards: Shards in a block of the first epoch's order of each source.
        """
        # The first source is drawn as it would be alone.
        seeds = [seed, *map(int, random_bits(seed, 0, _SOURCE, np.arange(1, len(corpora), dtype=np.uint64)))]
        self.sources = [
            WindowSampler(corpus, context, padding_id, mask_padding, of_source, first_epoch_shards)
            for corpus, of_source in zip(corpora, seeds, strict=True)
        ]
        self.context = context
        self.padding_id = padding_id
        self.mask_padding = mask_padding
        self.shares = [max(1, round(len(corpora[0]) * weight / weights[0])) for weight in weights]
        self._source_of = _spread(self.shares)
        self._number_of = _numbered(self._source_of, len(corpora))

    @property
    def windows_per_epoch(self) -> int:
        """One of every document of the first source, and those of the others beside them."""
        return len(self._source_of)

    def extent(self, epoch: int, first: int, last: int) -> Extent:
        """What the windows at positions `first` .. `last - 1` of an epoch take."""
        parts = [
            sampler.extent_at(own_epoch, own_positions)
            for _, sampler, own_epoch, own_positions in self._parts(epoch, np.arange(first, last))
        ]
        return Extent(
            self.context,
            sum(part.targets for part in parts),
            sum(part.padding for part in parts),
            any(part.waits for part in parts),
        )

    def draw(self, epoch: int, positions: NDArray[np.int64], width: int) -> Windows:
        """The windows at these positions of an epoch."""
        piece_of: dict[int, Tokens] = {}
        inside = np.empty(len(positions), dtype=np.int64)
        for rows, sampler, own_epoch, own_positions in self._parts(epoch, positions):
            pieces, inside[rows] = sampler.pieces(own_epoch, own_positions, width)
            piece_of.update(zip(rows.tolist(), pieces, strict=True))
        in_order = [piece_of[row] for row in range(len(positions))]
        tokens = join(in_order, np.arange(len(positions)), inside, width, self.padding_id).astype(np.int64)
        return Windows(tokens, next_tokens(tokens, inside if self.mask_padding else None))

    def _parts(
        self, epoch: int, positions: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], WindowSampler, int, NDArray[np.int64]]]:
        """Positions by source and the source's own epoch: which of them, the source, its epoch, positions in that."""
        source_of = self._source_of[positions]
        drawn = self._number_of[positions]
        for number, (sampler, share) in enumerate(zip(self.sources, self.shares, strict=True)):
            rows = np.flatnonzero(source_of == number)
            own_epochs, own_positions = np.divmod(epoch * share + drawn[rows], len(sampler.corpus))
            # Few, and mostly one: np.unique would take longer than all the rest.
            for own_epoch in sorted(set(own_epochs.tolist())):
                inside = own_epochs == own_epoch
                yield rows[inside], sampler, own_epoch, own_positions[inside]


def _spread(shares: Sequence[int]) -> NDArray[np.uint16]:
    """The source of each position."""
    times = np.concatenate([(np.arange(share) + 0.5) / share for share in shares])
    return np.repeat(np.arange(len(shares), dtype=np.uint16), shares)[np.argsort(times, kind="stable")]


def _numbered(source_of: NDArray[np.uint16], sources: int) -> NDArray[np.int64]:
    """How many positions before each one are of the same source."""
    numbers = np.empty(len(source_of), dtype=np.int64)
    for source in range(sources):
        rows = np.flatnonzero(source_of == source)
        numbers[rows] = np.arange(len(rows))
    return numbers
