"""What lies where in a checkpoint: JSON, where torch's own writer would leave a pickle."""

from typing import Annotated, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.storage import WriteResult

from components.train.checkpoints.marker import DamagedError

_Dtype = Literal["float32", "float64", "bfloat16", "float16", "int64", "bool"]
_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in get_args(_Dtype)}


class Piece(BaseModel):
    """A rectangular part of a tensor, one process's share of it.

    Attributes:
        offsets: Where it begins in the tensor.
        sizes: Its shape.
        file: That holds it.
        start: Its first byte there.
        bytes: How many.
        hash: Of those.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    offsets: list[int]
    sizes: list[int]
    file: Annotated[str, Field(pattern=r"^rank-\d{5}\.bin$")]
    start: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]
    hash: str


class StoredTensor(BaseModel):
    """A tensor of the state and its pieces."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: _Dtype
    shape: list[int]
    pieces: list[Piece]


class Index(BaseModel):
    """All tensors of a checkpoint, by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensors: dict[str, StoredTensor]

    def dtype(self, name: str) -> torch.dtype:
        """Of a tensor's elements."""
        return _DTYPES[self.tensors[name].dtype]

    def piece(self, place: MetadataIndex) -> Piece:
        """What torch's plan means by a place."""
        return next(each for each in self.tensors[place.fqn].pieces if each.offsets == list(place.offset or ()))

    def metadata(self) -> Metadata:
        """The same in torch's terms, for the plan of loading."""
        return Metadata({name: _torch_metadata(tensor) for name, tensor in self.tensors.items()})


def make_index(metadata: Metadata, results: list[list[WriteResult]]) -> Index:
    """The index of what all processes have written."""
    pieces: dict[str, list[Piece]] = {name: [] for name in metadata.state_dict_metadata}
    for result in (result for of_process in results for result in of_process):
        pieces[result.index.fqn].append(result.storage_data)
    tensors = {}
    for name, tensor in metadata.state_dict_metadata.items():
        if isinstance(tensor, BytesStorageMetadata):
            raise TypeError(f"{name} is no tensor: it would need pickle")
        dtype = str(tensor.properties.dtype).removeprefix("torch.")
        values = {"dtype": dtype, "shape": list(tensor.size), "pieces": pieces[name]}
        tensors[name] = StoredTensor.model_validate(values)
    return Index(tensors=tensors)


def parse_index(data: bytes) -> Index:
    """Read an index.

    Raises:
        DamagedError: It is none.
    """
    try:
        return Index.model_validate_json(data)
    except ValidationError as error:
        raise DamagedError("the index cannot be read") from error


def _torch_metadata(tensor: StoredTensor) -> TensorStorageMetadata:
    chunks = [ChunkStorageMetadata(torch.Size(piece.offsets), torch.Size(piece.sizes)) for piece in tensor.pieces]
    return TensorStorageMetadata(TensorProperties(_DTYPES[tensor.dtype]), torch.Size(tensor.shape), chunks)
