"""Tiny models of every kind, and two processes that share one, for the tests of the model."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ports import free_ports
from train_helpers import CONTEXT, VOCABULARY, tiny_settings

from components.train.settings import FinetuneSettings

if TYPE_CHECKING:
    import torch


def write_causal_model(folder: Path, kind: str = "llama", dtype: str = "float32", **changes: Any) -> Path:
    """Store a random causal model of two layers, of any LLaMA-like kind, and return its folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(values | changes)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms start at one, biases at zero: values that would hide a mix-up
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=changes.get("max_shard_size", "1GB"))
    return folder


def windows(rows: int = 4) -> "tuple[torch.Tensor, torch.Tensor]":
    """Random tokens and their targets, of which some do not count."""
    import torch

    tokens = torch.randint(VOCABULARY, (rows, CONTEXT), generator=torch.Generator().manual_seed(1))
    targets = tokens.roll(-1, dims=1)
    targets[:, -1] = -100
    targets[0, :5] = -100
    return tokens, targets


def lora_settings(**changes: Any) -> FinetuneSettings:
    """Fine-tuning by adapters, in fp32 on one thread."""
    values: dict[str, Any] = {
        "method": "lora",
        "context_length": CONTEXT,
        "global_batch_size": 8,
        "micro_batch_size": 4,
        "learning_rate": 1e-2,
        "precision": "fp32",
        "device": "cpu",
        "threads_per_process": 1,
    }
    return FinetuneSettings(**(values | changes))


def whole(tensor: "torch.Tensor") -> "torch.Tensor":
    """A sharded tensor, gathered; every process must ask for it."""
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach()


def gradients(model: "torch.nn.Module") -> "dict[str, torch.Tensor]":
    """Every gradient there is, whole, under the name that its parameter has without peft."""
    return {name: whole(weight.grad) for name, weight in model.named_parameters() if weight.grad is not None}


def in_two_processes(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call `function(layout, *arguments)` in two processes that know each other; what each returns, or its error."""
    (port,) = free_ports(1)
    with ProcessPoolExecutor(2, mp_context=_server()) as pool:
        calls = [pool.submit(_as_member, rank, port, function, arguments) for rank in range(2)]
        return [call.result() for call in calls]


def _as_member(rank: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    import torch.distributed as dist

    from components.train.distributed import start_processes

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        return function(start_processes(tiny_settings()), *arguments)
    finally:
        with contextlib.suppress(AssertionError):
            dist.destroy_process_group()  # also tells the other one, which may wait for this one


@cache
def _server() -> ForkServerContext:
    """Starts processes that need not import torch again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["components.train.modelling.load", "components.train.modelling.export"])
    return context
