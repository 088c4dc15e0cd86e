"""LoRA: low-rank adapters (arXiv 2106.09685) by peft, on an empty model, the same for any number of processes."""

import hashlib
import math
from typing import TypeGuard

import torch
from peft import LoraConfig, TaskType, inject_adapter_in_model
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from components.common.errors import InputError
from components.train.modelling.weights import is_adapter
from components.train.settings import FinetuneSettings, TrainingSettings


def uses_lora(settings: TrainingSettings) -> TypeGuard[FinetuneSettings]:
    """Whether adapters are trained rather than the weights."""
    return isinstance(settings, FinetuneSettings) and settings.method == "lora"


def add_adapters(model: PreTrainedModel, settings: FinetuneSettings, frozen_dtype: torch.dtype) -> None:
    """Put adapters beside the layers in `lora_targets`, and freeze everything else.

    Args:
        model: On the meta device.
        settings: `lora_rank`, `lora_alpha`, `lora_dropout`, `lora_targets`.
        frozen_dtype: What the frozen weights become; adapters are fp32.

    Raises:
        InputError: The model has no linear layer of one of the names.
    """
    known = _linear_names(model)
    for target in settings.lora_targets:
        if target not in known:
            raise InputError(
                f"lora_targets names {target!r}, but the linear layers of the model's decoder layers are "
                f"{', '.join(known)}."
            )
    inject_adapter_in_model(adapter_config(settings), model, low_cpu_mem_usage=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))
        if not is_adapter(name):
            parameter.data = parameter.data.to(frozen_dtype)


def adapter_config(settings: FinetuneSettings, base_name: str | None = None) -> LoraConfig:
    """What peft needs to know, to make the adapters or to load them."""
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        base_model_name_or_path=base_name,
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]  # peft only divides by it
        lora_dropout=settings.lora_dropout,
    )
    config.target_modules = sorted(settings.lora_targets)  # peft makes a set of it, whose order is not always the same
    return config


def initialise_adapters(model: torch.nn.Module, seed: int) -> None:
    """Draw A as peft does (uniform, Kaiming), set B to zero: the adapted model starts as the base model.

    Each is drawn by a generator of its own, from the seed and its name: however many processes share it, it is the
    same.
    """
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.detach().copy_(_first_value(name, parameter, seed))


def _first_value(name: str, parameter: torch.Tensor, seed: int) -> torch.Tensor:
    whole = torch.zeros(parameter.shape, dtype=parameter.dtype)
    if ".lora_A." in name or ".lora_embedding_A." in name:
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        torch.nn.init.kaiming_uniform_(whole, a=math.sqrt(5), generator=generator)
    if not isinstance(parameter, DTensor):
        return whole
    # Every process has drawn the whole: each keeps its part, nothing is sent.
    device = parameter.device_mesh.device_type
    return distribute_tensor(whole.to(device), parameter.device_mesh, parameter.placements, src_data_rank=None)


def _linear_names(model: PreTrainedModel) -> list[str]:
    modules = model.get_decoder().layers.named_modules()
    return sorted({name.rpartition(".")[2] for name, module in modules if isinstance(module, torch.nn.Linear)})
