"""The model: read from safetensors, sharded per decoder layer, computed in bf16 over fp32 weights."""

import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from components.common.errors import InputError
from components.train.distributed import Layout
from components.train.settings import TrainSettings

_COMPUTE_DTYPE = {"bf16": torch.bfloat16, "fp32": torch.float32}


def load_model(folder: Path, settings: TrainSettings, layout: Layout) -> PreTrainedModel:
    """Load the base model with fp32 weights, spread over all processes.

    Only the first process reads the weights; the others get their shards from it. So a node holds one full copy in
    memory while loading, and the checkpoint is read from the disk once.

    Args:
        folder: Hugging Face folder with safetensors weights.
        settings: Precision, compile.
        layout: The processes.

    Raises:
        InputError: The folder holds no usable safetensors model.
    """
    full = _read_model(folder) if layout.is_first else None
    layout.wait_for_all()  # reading takes minutes: longer than a collective may
    if layout.world == 1 and full is not None:
        model = full
        _shard(model, settings, layout)
    else:
        model = _empty_model(folder)
        _shard(model, settings, layout)
        _receive_weights(model, full, layout)
    model.config.use_cache = False
    return model.train()


def check_fits(folder: Path, context: int, vocabulary_size: int, padding_id: int) -> None:
    """Refuse a base model that cannot take the corpus's tokens or windows.

    Raises:
        InputError: It has fewer embeddings or positions than needed, or no weights in safetensors form.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"The base model {folder} has no readable config.json ({error}).") from error
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"The base model {folder} has no safetensors weights: pickled weights are never loaded.")
    if vocabulary_size > config["vocab_size"] or padding_id >= config["vocab_size"]:
        raise InputError(
            f"The base model has {config['vocab_size']} token embeddings, but the corpus was tokenised with a "
            f"vocabulary of {vocabulary_size} and padded with id {padding_id}: they do not belong together."
        )
    positions = config.get("max_position_embeddings", context)
    if context > positions:
        raise InputError(f"context_length {context} exceeds the base model's {positions} positions: lower it.")


def window_loss(model: PreTrainedModel, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of next-token cross entropies, natural logarithm.

    Args:
        model: The model.
        tokens: int64, shape (windows, context).
        targets: int64, same shape: the next token at each place, or -100 where none counts.
    """
    # No attention mask: padding is on the right, where causal attention never looks back from, and SDPA keeps its
    # fast path.
    logits = model(input_ids=tokens, attention_mask=None, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), reduction="sum", ignore_index=-100
    )


def _read_model(folder: Path) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, dtype=torch.float32, attn_implementation="sdpa"
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"The base model {folder} cannot be loaded: {error}") from error


def _empty_model(folder: Path) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")


def _shard(model: PreTrainedModel, settings: TrainSettings, layout: Layout) -> None:
    # Reduction and output stay fp32: bf16 sums over many processes lose the small gradients.
    policy = MixedPrecisionPolicy(
        param_dtype=_COMPUTE_DTYPE[settings.precision], reduce_dtype=torch.float32, output_dtype=None
    )
    for layer in model.get_decoder().layers:
        if settings.compile:
            layer.compile(fullgraph=True)
        fully_shard(layer, mesh=layout.mesh, mp_policy=policy)
    fully_shard(model, mesh=layout.mesh, mp_policy=policy)


def _receive_weights(model: PreTrainedModel, full: PreTrainedModel | None, layout: Layout) -> None:
    model.to_empty(device=layout.device)
    set_model_state_dict(
        model,
        full.state_dict() if full is not None else {},
        options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True),
    )
    model.tie_weights()
    # Buffers outside the state dict, such as the rotary frequencies.
    sources = dict(full.named_buffers()) if full is not None else {}
    for name, buffer in model.named_buffers():
        if full is not None:
            buffer.copy_(sources[name])
        dist.broadcast(buffer, src=0)
