"""Weights, streamed from safetensors files: every process reads its own slices and nothing else."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch.distributed.tensor import DTensor

from components.common.errors import InputError

_INDEX = "model.safetensors.index.json"
_ONLY_FILE = "model.safetensors"
_FLOATS = {"F64", "F32", "F16", "BF16"}
# Older LLaMA files carry the rotary frequencies, which the model computes from its configuration.
_DERIVED = re.compile(r"rotary_emb\.inv_freq$")


def stream_weights(model: torch.nn.Module, folder: Path) -> None:
    """Fill the sharded model from its files, whatever dtype they are in; adapters are left alone.

    No process waits for another here, because reading takes minutes.

    Args:
        model: Its parameters are whole, or DTensors split by their first dimension over a one-dimensional mesh.
        folder: Hugging Face folder.

    Raises:
        InputError: A file is missing or damaged, or the tensors' names or shapes are not the model's.
    """
    tensors = open_tensors(folder)
    for parameter, names in _match(model, tensors, folder):
        local, rows = _own_part(parameter.detach())
        if local.numel() == 0:
            continue
        local.copy_(tensors[names[0]].read(rows))
        for twin in names[1:]:
            if not torch.equal(local, tensors[twin].read(rows).to(local)):
                raise InputError(
                    f"In the model {folder}, {names[0]} and {twin} differ, but its config.json ties them: set "
                    "tie_word_embeddings to false there."
                )


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file, of which any rows can be read.

    Attributes:
        name: In the file.
        path: Of the file.
        shape: Of the whole tensor.
    """

    name: str
    path: Path
    shape: tuple[int, ...]

    def read(self, rows: slice = slice(None)) -> torch.Tensor:
        """These rows, in the dtype of the file."""
        # Opened for each tensor: an open file's pages stay mapped, and count as this process's memory.
        with safe_open(self.path, framework="pt") as file:
            return file.get_slice(self.name)[rows]


def open_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a model's files, by name; only headers are read.

    Raises:
        InputError: A file is missing or damaged, or its numbers are quantised.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys() if not _DERIVED.search(name)}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(f"The weights file {path} cannot be read ({error}): fetch the model again.") from error
        for name, stored in slices.items():
            if stored.get_dtype() not in _FLOATS:
                raise InputError(
                    f"The tensor {name} in {path} is of type {stored.get_dtype()}: quantised weights cannot be "
                    "trained; give a model in fp32, fp16 or bf16."
                )
            tensors[name] = StoredTensor(name, path, tuple(stored.get_shape()))
    return tensors


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights: those its index names, or the only one of a model without index.

    Raises:
        InputError: There is none, or one that the index names is missing.
    """
    index = folder / _INDEX
    names = _names_in_index(index) if index.is_file() else [_ONLY_FILE]
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise InputError(
                f"The model {folder} has no file {name}: weights are only read from safetensors, never from pickles."
            )
    return [folder / name for name in names]


def file_name(parameter_name: str) -> str:
    """What a parameter is called in the base model's files; peft wraps the layers that it adapts."""
    return parameter_name.replace(".base_layer.", ".")


def is_adapter(parameter_name: str) -> bool:
    """Whether a parameter belongs to an adapter, which no base model's file holds."""
    return ".lora_" in parameter_name


def _names_in_index(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is no index of safetensors files ({error!r}): fetch the model again.") from error


def _match(
    model: torch.nn.Module, tensors: dict[str, StoredTensor], folder: Path
) -> list[tuple[torch.Tensor, list[str]]]:
    """Every parameter with its names in the files, after a check that nothing is missing, left over or misshapen."""
    parameters = _names_by_parameter(model)
    for parameter, names in parameters:
        if not any(name in tensors for name in names):
            raise InputError(f"The model {folder} has no tensor {names[0]}: its weights do not fit its config.json.")
        for name in names:
            if name in tensors and tensors[name].shape != tuple(parameter.shape):
                raise InputError(
                    f"The tensor {name} of the model {folder} has the shape {tensors[name].shape}, but its "
                    f"config.json asks for {tuple(parameter.shape)}."
                )
    unknown = tensors.keys() - {name for _, names in parameters for name in names}
    if unknown:
        raise InputError(
            f"The model {folder} has a tensor {min(unknown)} that its config.json knows nothing of: they do not "
            "belong together."
        )
    return [(parameter, [name for name in names if name in tensors]) for parameter, names in parameters]


def _names_by_parameter(model: torch.nn.Module) -> list[tuple[torch.Tensor, list[str]]]:
    """Every parameter of the base model with all its names: tied embeddings have two, and files hold either or both."""
    found: dict[int, tuple[torch.Tensor, list[str]]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if not is_adapter(name):
            found.setdefault(id(parameter), (parameter, []))[1].append(file_name(name))
    return list(found.values())


def _own_part(parameter: torch.Tensor) -> tuple[torch.Tensor, slice]:
    """This process's rows of a parameter, and which they are.

    FSDP2 divides as torch.chunk does: the last processes may have fewer, or none.
    """
    if not isinstance(parameter, DTensor):
        return parameter, slice(None)
    local, mesh = parameter.to_local(), parameter.device_mesh
    rows = parameter.shape[0]
    each = -(-rows // mesh.size())
    start = min(mesh.get_local_rank() * each, rows)
    stop = min(start + each, rows)
    if local.shape[0] != stop - start:
        raise AssertionError(f"{local.shape[0]} rows of {rows} are here, not {start} to {stop}")
    return local, slice(start, stop)
