"""Writes a checkpoint: each process its shards, straight from memory to the store, the first the marker at the end."""

import os
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, TensorWriteData, WriteItem
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from components.common import storage
from components.train.checkpoints.history import History, to_json_lines
from components.train.checkpoints.index import Piece, make_index
from components.train.checkpoints.marker import HISTORY, INDEX, Marker, StoredPart, content_hash
from components.train.checkpoints.patience import Patience

_CHUNK_BYTES = 8 << 20


class StoreWriter(StorageWriter):
    """torch's interface for saving, over the artifact store.

    No scratch disk: an upload is tried again from the copy in memory, which is not touched until it is stored. Hashing
    and writing happen outside of Python's lock, in large pieces: the training thread hardly notices.
    """

    def __init__(
        self,
        uri: str,
        rank: int,
        history: History,
        epoch_end: bool,
        patience: Patience,
        commit: Callable[[Marker], None],
    ) -> None:
        """Write to the folder `uri` as process `rank`; `commit` stores the marker, in the first process."""
        super().__init__()
        self._uri, self._file = uri, f"rank-{rank:05d}.bin"
        self._history, self._epoch_end = history, epoch_end
        self._patience, self._commit = patience, commit

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this process's share as one file; raises StorageError."""
        future: Future[list[WriteResult]] = Future()
        future.set_result(self._patience.attempt(lambda: self._write_tensors(plan.items, planner)))
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the rest, in the first process, when all have written; raises StorageError."""
        index = make_index(metadata, results)
        texts = {
            INDEX: index.model_dump_json().encode(),
            HISTORY: to_json_lines(self._history).encode(),
        }
        for name, data in texts.items():
            self._patience.attempt(lambda name=name, data=data: self._write_text(name, data))  # type: ignore[misc]
        files = {name: StoredPart(bytes=len(data), hash=content_hash(data)) for name, data in texts.items()}
        for piece in (piece for tensor in index.tensors.values() for piece in tensor.pieces):
            end = max(piece.start + piece.bytes, files[piece.file].bytes if piece.file in files else 0)
            files[piece.file] = StoredPart(bytes=end)
        self._commit(Marker(step=len(self._history), epoch_end=self._epoch_end, files=files))

    def _write_tensors(self, items: list[WriteItem], planner: SavePlanner) -> list[WriteResult]:
        if not items:
            return []
        uri, written, start = storage.join(self._uri, self._file), [], 0
        file = storage.open_writer(uri)
        for item in items:
            data = _bytes_of(planner.resolve_data(item))
            for first in range(0, len(data), _CHUNK_BYTES):
                self._patience.check()
                chunk = data[first : first + _CHUNK_BYTES]
                storage.explained("write", uri, lambda chunk=chunk: file.write(chunk))  # type: ignore[misc]
            written.append(_result(item, self._file, start, data))
            start += len(data)
        storage.explained("write", uri, file.close)
        _flush_to_disk(uri)
        return written

    def _write_text(self, name: str, data: bytes) -> None:
        uri = storage.join(self._uri, name)
        storage.write(uri, data)
        _flush_to_disk(uri)

    # The rest of torch's interface: there is nothing to prepare.

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing is kept between calls."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Everything is known already."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Take the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Take the plans as they are."""
        return plans

    def storage_meta(self) -> StorageMeta | None:
        """Nothing more to tell."""
        return None

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:  # noqa: ARG003
        """The place is given at the start."""
        return True


def _bytes_of(tensor: Any) -> memoryview:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError("only tensors are stored: anything else would need pickle")
    return memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def _result(item: WriteItem, file: str, start: int, data: memoryview) -> WriteResult:
    chunk = cast(TensorWriteData, item.tensor_data).chunk
    piece = Piece(
        offsets=list(chunk.offsets),
        sizes=list(chunk.sizes),
        file=file,
        start=start,
        bytes=len(data),
        hash=content_hash(data),
    )
    return WriteResult(index=item.index, size_in_bytes=len(data), storage_data=piece)


def _flush_to_disk(uri: str) -> None:
    """Have the disk hold what was written before anything says so; an object store's answer means that already."""
    if not uri.startswith(storage.FILE_SCHEME):
        return
    for path in (storage.local_path(uri), storage.local_path(uri).parent):
        handle = os.open(path, os.O_RDONLY)
        try:
            storage.explained("write", uri, lambda handle=handle: os.fsync(handle))  # type: ignore[misc]
        finally:
            os.close(handle)
