"""The tensors of one optimiser step in one process."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from components.train.data.sampler import IGNORED, Sampler, Windows
from components.train.data.schedule import Plan


@dataclass(frozen=True)
class StepBatch:
    """One process's part of a step.

    Attributes:
        micro_batches: Pairs of tokens and targets, int64, each of shape (micro_batch_size, width).
        targets: Targets that count in the loss, over all processes.
        tokens: Tokens in the step's windows, padding included, over all processes.
        padding: How many of them are padding.
        waits: Whether all processes should meet before the step: the data of another node may still be on its way.
    """

    micro_batches: list[tuple[torch.Tensor, torch.Tensor]]
    targets: int
    tokens: int
    padding: int
    waits: bool


def step_batch(plan: Plan, sampler: Sampler, step: int, size: int, rank: int, world: int) -> StepBatch:
    """Draw a step's windows and lay out this process's part of them.

    Every process runs the same number of micro-batches of one shape, whatever is left in an epoch's last batch: rows
    without a window hold padding and count nowhere.

    Args:
        plan: The course of the run.
        sampler: Gives the windows.
        step: From 0.
        size: Windows in a micro-batch.
        rank: Of this process.
        world: How many processes there are.
    """
    return lay_out(sampler, *plan.batch(step), size, rank, world)


def lay_out(sampler: Sampler, epoch: int, first: int, last: int, size: int, rank: int, world: int) -> StepBatch:
    """One process's part of the windows at positions `first` .. `last - 1` of an epoch, as `step_batch` gives it."""
    extent = sampler.extent(epoch, first, last)
    positions = np.arange(first, last)
    mine = sampler.draw(epoch, positions[rank::world], extent.width)
    share = -(-len(positions) // world)
    tokens, targets = _rows(mine, sampler.padding_id, -(-share // size) * size, extent.width)
    return StepBatch(
        micro_batches=list(
            zip(torch.from_numpy(tokens).split(size), torch.from_numpy(targets).split(size), strict=True)
        ),
        targets=max(extent.targets, 1),
        tokens=len(positions) * extent.width,
        padding=extent.padding,
        waits=extent.waits,
    )


def _rows(windows: Windows, padding_id: int, rows: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if len(windows.tokens) == rows:
        return windows.tokens, windows.targets
    tokens = np.full((rows, width), padding_id, dtype=np.int64)
    targets = np.full((rows, width), IGNORED, dtype=np.int64)
    tokens[: len(windows.tokens)] = windows.tokens
    targets[: len(windows.tokens)] = windows.targets
    return tokens, targets
