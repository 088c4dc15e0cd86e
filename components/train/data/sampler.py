"""What every way of sampling gives the trainer: windows, as a pure function of the seed, the epoch and the position."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

IGNORED = -100  # the target that cross_entropy skips


@dataclass(frozen=True)
class Windows:
    """Some windows.

    Attributes:
        tokens: int64, shape (windows, width).
        targets: int64, same shape: the token that follows each place, or `IGNORED` where none counts in the loss.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]


@dataclass(frozen=True)
class Extent:
    """What a step takes over all processes, known without drawing its windows.

    Attributes:
        width: Places in each of its windows.
        targets: Targets that count in the loss.
        padding: Places that hold padding.
        waits: Whether its data may still be on its way to some node, so that all processes should meet before it.
    """

    width: int
    targets: int
    padding: int
    waits: bool = False


class Sampler(Protocol):
    """A way of sampling; the same windows on any number of processes, nothing to restore after an interruption."""

    @property
    def windows_per_epoch(self) -> int:
        """Windows in every epoch."""

    @property
    def padding_id(self) -> int:
        """Token that fills short windows."""

    def extent(self, epoch: int, first: int, last: int) -> Extent:
        """What the windows at positions `first` .. `last - 1` of an epoch take."""

    def draw(self, epoch: int, positions: NDArray[np.int64], width: int) -> Windows:
        """The windows at these positions of an epoch, each `width` places wide.

        Waits until their data is on this node and checked.

        Raises:
            InputError: A shard is missing or is not what its manifest says.
        """
