"""The tensors of one optimiser step in one process."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from components.train.schedule import Plan
from components.train.windows import WindowBatch, WindowSampler

IGNORED = -100  # the target that cross_entropy skips


@dataclass(frozen=True)
class StepBatch:
    """One process's part of a step.

    Attributes:
        micro_batches: Pairs of tokens and targets, int64, each of shape (micro_batch_size, context).
        targets: Targets that count in the loss, over all processes.
        tokens: Tokens in the step's windows, padding included, over all processes.
        padding: How many of them are padding.
    """

    micro_batches: list[tuple[torch.Tensor, torch.Tensor]]
    targets: int
    tokens: int
    padding: int


def step_batch(plan: Plan, sampler: WindowSampler, step: int, rank: int, world: int) -> StepBatch:
    """Draw a step's windows and lay out this process's part of them.

    Every process runs the same number of micro-batches of one shape, whatever is left in an epoch's last batch: rows
    without a window hold padding and count nowhere.
    """
    epoch, first, last = plan.batch(step)
    documents = sampler.documents(epoch, first, last)
    mine = sampler.windows(epoch, documents[rank::world])
    tokens, targets = _rows(mine, sampler, plan, share=-(-len(documents) // world))
    lengths = np.minimum(sampler.corpus.lengths[documents], sampler.context)
    total = len(documents) * sampler.context
    counted = int((lengths - 1).sum()) if plan.settings.mask_padding else len(documents) * (sampler.context - 1)
    size = plan.settings.micro_batch_size
    return StepBatch(
        micro_batches=list(
            zip(torch.from_numpy(tokens).split(size), torch.from_numpy(targets).split(size), strict=True)
        ),
        targets=max(counted, 1),
        tokens=total,
        padding=total - int(lengths.sum()),
    )


def next_tokens(batch: WindowBatch, mask_padding: bool) -> NDArray[np.int64]:
    """Targets of windows: the token to the right, nothing for the last place, and padding only if it counts."""
    targets = np.full_like(batch.tokens, IGNORED)
    targets[:, :-1] = batch.tokens[:, 1:]
    if mask_padding:
        targets[np.arange(targets.shape[1])[None, :] >= batch.lengths[:, None] - 1] = IGNORED
    return targets


def _rows(
    batch: WindowBatch, sampler: WindowSampler, plan: Plan, share: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    size = plan.settings.micro_batch_size
    shape = (-(-share // size) * size, sampler.context)
    tokens = np.full(shape, sampler.padding_id, dtype=np.int64)
    targets = np.full(shape, IGNORED, dtype=np.int64)
    tokens[: len(batch.tokens)] = batch.tokens
    targets[: len(batch.tokens)] = next_tokens(batch, plan.settings.mask_padding)
    return tokens, targets
