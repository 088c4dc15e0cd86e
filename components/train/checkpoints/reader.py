"""Reads a checkpoint: each process its pieces, by ranges, straight from the store into the tensors."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from components.common import storage
from components.train.checkpoints.index import Index
from components.train.checkpoints.marker import DamagedError, content_hash

_THREADS = 4  # of them each holds a piece in memory


class StoreReader(StorageReader):
    """torch's interface for loading, over the artifact store; every piece is held against its hash."""

    def __init__(self, uri: str, index: Index) -> None:
        """Read from the folder `uri`, of which `index` says what lies where."""
        super().__init__()
        self._uri, self._index = uri, index

    def read_metadata(self) -> Metadata:
        """What is stored, in torch's terms."""
        return self._index.metadata()

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fill the tensors of a plan.

        Raises:
            DamagedError: A piece has other bytes than were stored.
            StorageError: The store cannot be read.
        """
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="checkpoint") as threads:
            for _ in threads.map(lambda item: self._read(item, planner), plan.items):
                pass
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def _read(self, item: ReadItem, planner: LoadPlanner) -> None:
        piece = self._index.piece(item.storage_index)
        if piece.bytes == 0:
            return
        data = storage.read_range(storage.join(self._uri, piece.file), piece.start, piece.bytes)
        if content_hash(data) != piece.hash:
            last = piece.start + piece.bytes - 1
            raise DamagedError(f"bytes {piece.start:,} to {last:,} of {piece.file} are not those that were stored")
        stored = torch.frombuffer(data, dtype=self._index.dtype(item.storage_index.fqn)).reshape(piece.sizes)
        for dimension, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
            stored = stored.narrow(dimension, start, length)
        target = planner.resolve_tensor(item).detach()
        target.copy_(stored)
        planner.commit_tensor(item, target)

    # The rest of torch's interface: there is nothing to prepare.

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing is kept between calls."""

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Everything is known already."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Take the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Take the plans as they are."""
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:  # noqa: ARG003
        """The place is given at the start."""
        return True
