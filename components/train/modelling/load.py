"""The base model: built empty, adapted, sharded, and only then filled from its files."""

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from components.common.errors import InputError
from components.train.distributed import Layout
from components.train.modelling.lora import add_adapters, initialise_adapters, uses_lora
from components.train.modelling.sharding import COMPUTE_DTYPE, shard
from components.train.modelling.weights import stream_weights, weight_files
from components.train.settings import TrainingSettings

# Decoders whose logits are their head's output and whose layers are alike: what sharding and the loss count on.
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")


def load_model(folder: Path, settings: TrainingSettings, layout: Layout) -> PreTrainedModel:
    """Load the base model, spread over all processes; every process must call this.

    Every process reads its own slices of the files, straight into its shards: none ever holds the whole model.
    Trained weights are fp32. With LoRA the base's weights are frozen, and kept in the precision they compute in: they
    are never seen in any other.

    Args:
        folder: Hugging Face folder with safetensors weights.
        settings: Precision, compile, activation checkpointing; LoRA, when fine-tuning.
        layout: The processes.

    Raises:
        InputError: The folder holds no model that can be trained, or it has no layers of the names in `lora_targets`.
    """
    model = _empty_model(folder)
    if uses_lora(settings):
        add_adapters(model, settings, COMPUTE_DTYPE[settings.precision])
    shard(model, settings, layout)
    _materialise(model, layout.device)
    stream_weights(model, folder)
    initialise_adapters(model, settings.seed)
    return model.train()


def check_fits(folder: Path, context: int, vocabulary_size: int, padding_id: int) -> None:
    """Refuse a base model that the trainer does not know, or that cannot take the corpus's tokens or windows.

    Raises:
        InputError: It is of another architecture, has fewer embeddings or positions than needed, or no weights in
            safetensors form.
    """
    config = _read_config(folder)
    weight_files(folder)
    if vocabulary_size > config["vocab_size"] or padding_id >= config["vocab_size"]:
        raise InputError(
            f"The base model has {config['vocab_size']} token embeddings, but the corpus was tokenised with a "
            f"vocabulary of {vocabulary_size} and padded with id {padding_id}: they do not belong together."
        )
    positions = config.get("max_position_embeddings", context)
    if context > positions:
        raise InputError(f"context_length {context} exceeds the base model's {positions} positions: lower it.")


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        kind = config.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"The base model {folder} has no readable config.json ({error}).") from error
    if kind not in ARCHITECTURES:
        raise InputError(
            f"The base model {folder} is of the type {kind!r}; only LLaMA-like models can be trained: "
            f"{', '.join(ARCHITECTURES)}."
        )
    if "quantization_config" in config:
        raise InputError(f"The base model {folder} is quantised: give the original, unquantised weights.")
    if not isinstance(config.get("vocab_size"), int):
        raise InputError(f"The config.json of the base model {folder} says no vocab_size.")
    return config


def _empty_model(folder: Path) -> PreTrainedModel:
    """The model with parameters that have a shape but no memory, and with its real buffers: the rotary frequencies."""
    _read_config(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    except Exception as error:
        # The configuration is data from outside: transformers raises all sorts of errors over a bad one.
        raise InputError(f"No model can be built from {folder / 'config.json'}: {error}") from error
    model.tie_weights()  # emptying has torn tied weights apart, and sharding must know that they are one
    model.config.use_cache = False
    return model


def _materialise(model: PreTrainedModel, device: torch.device) -> None:
    """Give the shards memory, tie what emptying has torn apart again, and move the buffers."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.to_empty(device=device)
    model.tie_weights()
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
