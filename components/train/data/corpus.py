"""The documents of a corpus's token shards, memory-mapped, under one numbering.

In memory are 16 bytes a document (80 MB for 5 million); the tokens stay in the page cache, which all processes of a
node share.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Tokens = NDArray[np.unsignedinteger]


class Arrivals(Protocol):
    """How a corpus learns which shards are on this node and checked."""

    def expect(self, files: Sequence[Path]) -> bool:
        """Ask for shards next; tell whether any of them had not been asked for before."""

    def wait_for(self, files: Sequence[Path]) -> None:
        """Return when shards are here; raise InputError as soon as any of all the shards cannot be used."""


class Corpus:
    """Documents of several shards: shard by shard, in the order given.

    Attributes:
        lengths: int64, tokens of each document.
        shard_documents: int64, documents of each shard.
        dtype: Of the token ids in the shards.
    """

    def __init__(self, files: Sequence[Path], dtype: str, arrivals: Arrivals | None = None) -> None:
        """Read the shards' indexes, which must be here and checked; map their tokens when they are first needed.

        Args:
            files: The `.bin` files; each has its `.idx` beside it.
            dtype: Of the token ids, `uint16` or `uint32`.
            arrivals: Tells which `.bin` files are here; None if all are.
        """
        offsets = [read_offsets(file) for file in files]
        self.shard_documents: NDArray[np.int64] = np.array([len(of_shard) - 1 for of_shard in offsets])
        self.lengths: NDArray[np.int64] = np.concatenate([np.diff(of_shard) for of_shard in offsets])
        self._starts: NDArray[np.int64] = np.concatenate([of_shard[:-1] for of_shard in offsets])
        self._ends = np.cumsum(self.shard_documents)
        self._files = files
        self.dtype = np.dtype(dtype)
        self._arrivals = arrivals
        self._tokens: list[Tokens | None] = [None] * len(files)
        self._unmapped = len(files)
        self._expected = np.zeros(len(files), dtype=bool)

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.lengths)

    @property
    def all_expected(self) -> bool:
        """Whether no shard is left that would be needed for the first time."""
        return self._arrivals is None or bool(self._expected.all())

    def shards_of(self, documents: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the shards that hold these documents."""
        return np.searchsorted(self._ends, documents, side="right")

    def expect(self, shards: NDArray[np.int64]) -> bool:
        """Have these shards fetched next; tell whether any of them is needed for the first time."""
        new = np.unique(shards[~self._expected[shards]])
        if new.size == 0 or self._arrivals is None:
            return False
        self._expected[new] = True
        return self._arrivals.expect([self._files[shard] for shard in new])

    def slices(self, documents: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64]) -> list[Tokens]:
        """Tokens `starts` .. `stops - 1` of the given documents, as views into the shards: nothing is copied.

        Raises:
            InputError: A shard is missing or is not what its manifest says.
        """
        shards = self.shards_of(documents)
        if self._unmapped:
            self._map(np.unique(shards))
        first = self._starts[documents]
        places = zip(shards.tolist(), (first + starts).tolist(), (first + stops).tolist(), strict=True)
        # A slice takes 0.2 microseconds: less than grouping the windows by shard when there are many shards.
        return [self._tokens[shard][start:stop] for shard, start, stop in places]  # type: ignore[index]

    def _map(self, shards: NDArray[np.int64]) -> None:
        new = [shard for shard in shards.tolist() if self._tokens[shard] is None]
        if self._arrivals is not None:  # also with nothing new: a shard that cannot be used ends the run early
            self._arrivals.wait_for([self._files[shard] for shard in new])
        for shard in new:
            self._tokens[shard] = map_tokens(self._files[shard], self.dtype)
        self._unmapped -= len(new)


def read_offsets(file: Path) -> NDArray[np.int64]:
    """Offsets of the documents in a shard's `.bin` file, and its end."""
    return np.fromfile(file.with_suffix(".idx"), dtype="<i8")


def map_tokens(file: Path, dtype: np.dtype) -> Tokens:
    """Map a shard's tokens.

    By torch, which closes the file once it is mapped: `numpy.memmap` keeps it open, and 1,024 shards are one more than
    a process may have open by default.
    """
    kind = {2: torch.uint16, 4: torch.uint32}[dtype.itemsize]
    tokens = torch.from_file(str(file), shared=False, size=file.stat().st_size // dtype.itemsize, dtype=kind)
    return tokens.numpy()
