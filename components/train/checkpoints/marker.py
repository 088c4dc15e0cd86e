"""The marker, written last: it says what a checkpoint consists of, so that one cut short is recognised."""

from typing import Annotated

import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.common import storage
from components.train.checkpoints.places import MARKER, step_uri

INDEX, HISTORY = "index.json", "history.jsonl"
_FileName = Annotated[str, Field(pattern=r"^(rank-\d{5}\.bin|index\.json|history\.jsonl)$")]


class DamagedError(Exception):
    """A checkpoint is not what was stored; the text says which of its files and why."""


class StoredPart(BaseModel):
    """A file of a checkpoint: its size, and its hash unless the index has one of each of its pieces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    hash: str = ""


class Marker(BaseModel):
    """What `COMPLETE` holds.

    Attributes:
        step: Steps done.
        epoch_end: Whether it was saved because an epoch ended.
        files: All others of the checkpoint, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    epoch_end: bool
    files: dict[_FileName, StoredPart]

    @property
    def bytes(self) -> int:
        """Size of the whole checkpoint."""
        return sum(file.bytes for file in self.files.values())


def read_marker(uri: str, step: int, found: dict[str, int]) -> Marker:
    """The marker of a checkpoint, held against the files that are there.

    Args:
        uri: Of all checkpoints.
        step: Of this one.
        found: Name and size of its files.

    Raises:
        DamagedError: The marker is unreadable, or a file is missing or has another size.
        StorageError: The store cannot be read.
    """
    try:
        marker = Marker.model_validate_json(storage.read(storage.join(step_uri(uri, step), MARKER)))
    except ValidationError as error:
        raise DamagedError(f"{MARKER} cannot be read") from error
    if marker.step != step or not {INDEX, HISTORY} <= set(marker.files):
        raise DamagedError(f"{MARKER} is not this checkpoint's")
    for name, file in marker.files.items():
        if name not in found:
            raise DamagedError(f"{name} is missing")
        if found[name] != file.bytes:
            raise DamagedError(f"{name} has {found[name]:,} bytes instead of {file.bytes:,}")
    return marker


def read_part(uri: str, marker: Marker, name: str) -> bytes:
    """The bytes of one of the small files.

    Raises:
        DamagedError: They are not those that were stored.
        StorageError: The store cannot be read.
    """
    data = storage.read(storage.join(step_uri(uri, marker.step), name))
    if content_hash(data) != marker.files[name].hash:
        raise DamagedError(f"{name} has other bytes than were stored")
    return data


def content_hash(data: bytes | bytearray | memoryview) -> str:
    """XXH3 of 128 bits: it guards against damage, not against an attacker, at the speed of memory."""
    return xxhash.xxh3_128_hexdigest(data)
