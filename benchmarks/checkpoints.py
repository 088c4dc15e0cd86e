"""Measure what a checkpoint costs the training loop: ``python -m benchmarks.checkpoints [--folder place]``.

A LLaMA of 60 million parameters trains on CPU; its state (weights and AdamW's moments, 0.7 GB) goes to a folder. The
ways to save take turns, several times. For each: how long the loop stands still (the stall), how long until the
checkpoint is complete, and how much slower the steps are in between than those without a save.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from rich.console import Console
from rich.table import Table
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM

from components.common import storage
from components.train.checkpoints.checkpoints import Checkpoints
from components.train.checkpoints.state import TrainingState
from components.train.distributed import Layout, start_processes
from components.train.settings import TrainSettings

SHAPE = {"vocab_size": 32_000, "hidden_size": 512, "intermediate_size": 1_408, "num_hidden_layers": 8}
WINDOWS, TOKENS = 2, 64
QUIET_STEPS = 4


class Training:
    """The model and what a step of it takes."""

    def __init__(self, layout: Layout, shape: dict[str, int]) -> None:
        """Make a sharded model of this shape with random weights."""
        torch.manual_seed(0)
        self.model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=8))
        for layer in self.model.model.layers:
            fully_shard(layer, mesh=layout.mesh)
        fully_shard(self.model, mesh=layout.mesh)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.history: list[dict[str, Any]] = []

    def step(self) -> float:
        """Train one step; returns its seconds."""
        started = time.perf_counter()
        tokens = torch.randint(0, SHAPE["vocab_size"], (WINDOWS, TOKENS))
        self.model(input_ids=tokens, labels=tokens).loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.history.append({"step": len(self.history) + 1})
        return time.perf_counter() - started

    @property
    def bytes(self) -> int:
        """Size of the state."""
        return sum(tensor.nbytes for tensor in TrainingState(self.model, self.optimiser).tensors.values())


@dataclass
class Cost:
    """Of one save, in seconds; steps during it, and beside it without."""

    stall: float
    complete: float
    during: list[float]
    quiet: list[float]


Save = Callable[[Path], Callable[[], bool]]  # starts one, gives back how to ask whether it is complete


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="where checkpoints go (default: a temporary folder)")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--layers", type=int, default=SHAPE["num_hidden_layers"], help="fewer for a quick look")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ.update({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"})
    os.environ.setdefault("MASTER_PORT", "29507")
    settings = TrainSettings.model_validate({"device": "cpu", "micro_batch_size": 1, "threads_per_process": 1})
    layout = start_processes(settings)
    training = Training(layout, SHAPE | {"num_hidden_layers": options.layers})
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        costs = measure(training, layout, settings, Path(folder), options.repetitions)
    show(costs, training)
    dist.destroy_process_group()


def measure(
    training: Training, layout: Layout, settings: TrainSettings, folder: Path, repetitions: int
) -> dict[str, list[Cost]]:
    """Let the ways to save take turns; the first round, in which memory is taken, does not count."""
    with Checkpoints(storage.to_uri(folder / "ours"), settings, layout) as checkpoints:
        ways = {
            "torch: save": torch_save(training, layout),
            "torch: async_save in a thread": torch_async(training, layout, AsyncCheckpointerType.THREAD),
            "torch: async_save in a process": torch_async(training, layout, AsyncCheckpointerType.PROCESS),
            "ours, waiting": ours(training, checkpoints, wait=True),
            "ours": ours(training, checkpoints, wait=False),
        }
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        for repetition in range(repetitions + 1):
            for name, save in ways.items():
                cost = one(training, save, folder / "torch")
                if repetition > 0:
                    costs[name].append(cost)
    return costs


def one(training: Training, save: Save, folder: Path) -> Cost:
    """Train, save, train on until the save is complete."""
    shutil.rmtree(folder, ignore_errors=True)
    os.sync()  # nobody pays for what another has left to the disk
    quiet = [training.step() for _ in range(QUIET_STEPS)]
    started = time.perf_counter()
    complete = save(folder)
    stall = time.perf_counter() - started
    during = []
    while not complete():
        during.append(training.step())
    return Cost(stall, time.perf_counter() - started, during, quiet)


def torch_save(training: Training, layout: Layout) -> Save:
    """Save as torch does, waiting."""

    def save(folder: Path) -> Callable[[], bool]:
        tensors = TrainingState(training.model, training.optimiser).tensors
        dcp.save(tensors, checkpoint_id=folder, process_group=layout.checkpoint_group)
        return lambda: True

    return save


def torch_async(training: Training, layout: Layout, kind: AsyncCheckpointerType) -> Save:
    """Save as torch does, in a thread or a process, with its own writer."""
    shared = kind == AsyncCheckpointerType.PROCESS
    stager = DefaultStager(StagingOptions(False, shared, False, False))

    def save(folder: Path) -> Callable[[], bool]:
        tensors = TrainingState(training.model, training.optimiser).tensors
        future = dcp.async_save(
            tensors,
            checkpoint_id=folder,
            process_group=layout.checkpoint_group,
            async_checkpointer_type=kind,
            async_stager=stager,
        )
        assert isinstance(future, Future)
        return future.done

    return save


def ours(training: Training, checkpoints: Checkpoints, wait: bool) -> Save:
    """What the trainer does; waiting for it is the synchronous save to compare with."""

    def save(_folder: Path) -> Callable[[], bool]:
        checkpoints.save(training.model, training.optimiser, training.history)
        if wait:
            checkpoints.finish()
        return lambda: bool(checkpoints.commits())

    return save


def show(costs: dict[str, list[Cost]], training: Training) -> None:
    """Print medians, with the range of the stalls."""
    parameters = training.model.num_parameters()
    table = Table(title=f"{parameters / 1e6:.0f} M parameters, {training.bytes / 1e6:,.0f} MB of state")
    table.add_column("Way to save")
    for column in ("Stall, s", "range", "of torch: save", "of ours, waiting", "Complete, s", "Steps slower by"):
        table.add_column(column, justify="right")
    stalls = {name: [cost.stall for cost in each] for name, each in costs.items()}
    base, waiting = (statistics.median(stalls[name]) for name in ("torch: save", "ours, waiting"))
    for name, each in costs.items():
        stall = statistics.median(stalls[name])
        during = [seconds for cost in each for seconds in cost.during]
        quiet = statistics.median(seconds for cost in each for seconds in cost.quiet)
        table.add_row(
            name,
            f"{stall:.3f}",
            f"{min(stalls[name]):.3f} to {max(stalls[name]):.3f}",
            f"{stall / base:.2f}",
            f"{stall / waiting:.2f}",
            f"{statistics.median(cost.complete for cost in each):.2f}",
            f"{statistics.mean(during) / quiet - 1:.0%}" if during else "",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
