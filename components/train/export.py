"""The trained model as a Hugging Face folder in the artifact store."""

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from components.common import storage
from components.common.fingerprint import sha256_file
from components.train.distributed import Layout
from components.train.settings import TrainSettings

log = logging.getLogger(__name__)

# In bf16 training the forward pass sees bf16 weights: exporting them loses nothing that the loss ever saw.
_EXPORT_DTYPE = {"bf16": torch.bfloat16, "fp32": torch.float32}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
)


def export_model(
    model: PreTrainedModel, base: Path, model_uri: str, scratch: Path, settings: TrainSettings, layout: Layout
) -> list[dict[str, Any]]:
    """Gather the weights and store them with the base model's tokenizer; every process must call this.

    Args:
        model: The trained, sharded model.
        base: Local folder of the base model, for its tokenizer.
        model_uri: Where the folder goes.
        scratch: Local folder to write it in first.
        settings: Precision of the export.
        layout: The processes.

    Returns:
        Name, URI, bytes and SHA-256 of each file, in the first process; nothing in the others.
    """
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    files: list[dict[str, Any]] = []
    if layout.is_first:
        folder = scratch / "model"
        _write_folder(weights, base, folder, _EXPORT_DTYPE[settings.precision])
        storage.upload_folder(folder, model_uri)
        files = [_describe(path, model_uri) for path in sorted(folder.iterdir())]
        shutil.rmtree(folder)
        log.info("Exported the model to %s", model_uri)
    layout.wait_for_all()
    return files


def _write_folder(weights: dict[str, torch.Tensor], base: Path, folder: Path, dtype: torch.dtype) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    # An unsharded twin without memory: it gives the weights their names in the file and the folder its config.
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    with torch.device("meta"):
        twin = AutoModelForCausalLM.from_config(config, dtype=dtype)
    twin.save_pretrained(folder, state_dict={name: tensor.to(dtype) for name, tensor in weights.items()})
    for name in _TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


def _describe(path: Path, model_uri: str) -> dict[str, Any]:
    return {
        "name": path.name,
        "uri": storage.join(model_uri, path.name),
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
    }
