"""The trained model, or its adapter, as a Hugging Face folder in the artifact store."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft.utils import CONFIG_NAME as ADAPTER_CONFIG
from peft.utils import SAFETENSORS_WEIGHTS_NAME as ADAPTER_WEIGHTS
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, PreTrainedModel

from components.common import storage
from components.common.errors import StorageError
from components.common.fingerprint import sha256_file
from components.train.distributed import Layout
from components.train.modelling.lora import adapter_config, uses_lora
from components.train.modelling.sharding import COMPUTE_DTYPE
from components.train.modelling.weights import StoredTensor, file_name, is_adapter, open_tensors
from components.train.settings import FinetuneSettings, TrainingSettings

log = logging.getLogger(__name__)

# No process ever holds more of the gathered model than one file.
LARGEST_FILE_BYTES = 5 * 10**9
_CONFIG = "config.json"
_COPIED_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
_Shapes = dict[str, tuple[int, ...]]
_Gather = Callable[[str], torch.Tensor]


def export_model(
    model: PreTrainedModel,
    base: Path,
    model_uri: str,
    scratch: Path,
    settings: TrainingSettings,
    layout: Layout,
    base_name: str | None = None,
) -> list[dict[str, Any]]:
    """Store the model with the base model's tokenizer; every process must call this.

    With LoRA the adapter goes to `adapter/` below `model_uri`, as plain peft loads it; with `merge_adapter` the base
    model with the adapter added to its weights goes to `model_uri` itself. What was at `model_uri` before is deleted.
    A folder's configuration is stored last: without it nothing loads, so a broken export does not look finished.

    Args:
        model: The trained, sharded model.
        base: Local folder of the base model: for its tokenizer, and its weights when an adapter is merged.
        model_uri: Where the folder goes.
        scratch: Local folder to write it in first.
        settings: Precision of the export; LoRA.
        layout: The processes.
        base_name: What the adapter says it belongs to: a name on the hub or an address that others can reach.

    Returns:
        Name, URI, bytes and SHA-256 of each file, in the first process; nothing in the others.
    """
    folder = scratch / "model"
    dtype = COMPUTE_DTYPE[settings.precision]
    if layout.is_first:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    if uses_lora(settings):
        adapter = {name: _gather(tensor) for name, tensor in _weights(model) if is_adapter(name)}
        if layout.is_first:
            _write_adapter(adapter, folder / "adapter", settings, base_name)
            if settings.merge_adapter:
                _write_weights(*_merged(adapter, base, settings), folder, dtype, layout)
                _write_config(model, folder, base, dtype)
    else:
        weights = dict(_weights(model))
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        _write_weights(shapes, lambda name: _gather(weights[name]), folder, dtype, layout)
        if layout.is_first:
            _write_config(model, folder, base, dtype)
    files: list[dict[str, Any]] = []
    if layout.is_first:
        files = _store(folder, model_uri)
        shutil.rmtree(folder)
        log.info("Exported the model to %s", model_uri)
    layout.wait_for_all()
    return files


def _weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Each weight once, sharded: tied embeddings are one tensor in the file too."""
    known = set(dict(model.named_parameters()))
    # The state dict is always of the sharded weights, also where gathered ones are still in the model's place.
    return ((name, tensor) for name, tensor in model.state_dict().items() if name in known)


def _gather(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def _write_weights(shapes: _Shapes, gather: _Gather, folder: Path, dtype: torch.dtype, layout: Layout) -> None:
    """Write the weights file by file, in the first process; the others only take part in the gathering."""
    files = _split(shapes, dtype.itemsize)
    for file, names in files.items():
        tensors = {}
        for name in names:
            whole = gather(name)
            if layout.is_first:
                # In bf16 training the forward pass sees bf16 weights: this loses nothing that the loss ever saw.
                tensors[name] = whole.to("cpu", dtype)
        if layout.is_first:
            _save(tensors, folder / file)
    if layout.is_first and len(files) > 1:
        index = {
            "metadata": {"total_size": sum(torch.Size(shape).numel() for shape in shapes.values()) * dtype.itemsize},
            "weight_map": {name: file for file, names in files.items() for name in names},
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _save(tensors: dict[str, torch.Tensor], file: Path) -> None:
    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise StorageError(
            f"{file} of {sum(tensor.nbytes for tensor in tensors.values()) / 1e9:,.2f} GB cannot be written ({error}): "
            "free some space, or set TMPDIR to a larger disk. The training is done and kept: another run only exports."
        ) from error


def _write_config(model: PreTrainedModel, folder: Path, base: Path, dtype: torch.dtype) -> None:
    """The base's configuration and tokenizer beside the weights."""
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    config.architectures = [type(model).__name__.removeprefix("FSDP")]  # sharding renames the class
    config.dtype = dtype
    config.save_pretrained(folder)
    for name in _COPIED_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


def _split(shapes: _Shapes, item_bytes: int) -> dict[str, list[str]]:
    """Names of the weights in each file, in the model's order."""
    files: list[list[str]] = [[]]
    used = 0
    for name, shape in shapes.items():
        size = torch.Size(shape).numel() * item_bytes
        if files[-1] and used + size > LARGEST_FILE_BYTES:
            files.append([])
            used = 0
        files[-1].append(name)
        used += size
    if len(files) == 1:
        return {"model.safetensors": files[0]}
    return {f"model-{number:05d}-of-{len(files):05d}.safetensors": names for number, names in enumerate(files, start=1)}


def _write_adapter(
    adapter: dict[str, torch.Tensor], folder: Path, settings: FinetuneSettings, base_name: str | None
) -> None:
    """As peft writes it: names without the adapter's own, below `base_model.model`."""
    folder.mkdir()
    tensors = {f"base_model.model.{name.replace('.default.', '.')}": tensor.cpu() for name, tensor in adapter.items()}
    _save(tensors, folder / ADAPTER_WEIGHTS)
    config = adapter_config(settings, base_name)
    config.inference_mode = True
    config.save_pretrained(str(folder))


def _merged(adapter: dict[str, torch.Tensor], base: Path, settings: FinetuneSettings) -> tuple[_Shapes, _Gather]:
    """The base's weights as its files have them, with scale x B A added (arXiv 2106.09685, section 4.1)."""
    stored: dict[str, StoredTensor] = open_tensors(base)
    scale = settings.lora_alpha / settings.lora_rank
    pairs = {
        file_name(name.replace(".lora_A.default.", ".base_layer.")): (a, adapter[name.replace(".lora_A.", ".lora_B.")])
        for name, a in adapter.items()
        if ".lora_A." in name
    }

    def merge(name: str) -> torch.Tensor:
        weight = stored[name].read().float()
        if name in pairs:
            a, b = pairs[name]
            weight += scale * (b @ a).cpu()
        return weight

    return {name: tensor.shape for name, tensor in stored.items()}, merge


def _store(folder: Path, model_uri: str) -> list[dict[str, Any]]:
    """Upload the folder, configurations last."""
    storage.delete_prefix(model_uri)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    paths.sort(key=lambda path: (path.name in (_CONFIG, ADAPTER_CONFIG), path))
    for path in paths:
        storage.upload(path, storage.join(model_uri, path.relative_to(folder).as_posix()))
    return [_describe(path, folder, model_uri) for path in sorted(paths)]


def _describe(path: Path, folder: Path, model_uri: str) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    return {
        "name": name,
        "uri": storage.join(model_uri, name),
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }
