"""One optimiser step: gradients of the global batch, what all processes agree on, and the update."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from components.train.data.batches import StepBatch
from components.train.distributed import Layout
from components.train.modelling.loss import window_loss
from components.train.modelling.optimiser import limit_gradient_norm, set_learning_rate
from components.train.modelling.sharding import synchronise_gradients
from components.train.settings import TrainingSettings


@dataclass(frozen=True)
class Agreement:
    """What every process knows of a step, equal on all.

    Attributes:
        loss: Mean cross entropy per counted target, natural logarithm.
        gradient_norm: Total L2 norm before any clipping.
        due: Whether to save a checkpoint after the step: the first process's clock decides.
        stopping: Whether any process was asked to stop.
    """

    loss: float
    gradient_norm: float
    due: bool
    stopping: bool


def compute_gradients(
    model: PreTrainedModel, batch: StepBatch, settings: TrainingSettings, layout: Layout
) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward and backward passes of this process's micro-batches; gradients are exchanged once, after the last.

    Returns:
        The sum of this process's losses and the norm of the whole batch's gradient, scaled down to the recipe's
        limit: tensors, since reading them would wait for the device.
    """
    loss_sum = torch.zeros((), dtype=torch.float64, device=layout.device)
    for number, (tokens, targets) in enumerate(batch.micro_batches, start=1):
        synchronise_gradients(model, number == len(batch.micro_batches))
        loss = window_loss(model, to_device(tokens, layout), to_device(targets, layout), settings.loss_chunk_tokens)
        # Sharded gradients are averaged over processes; times their number, they add up to the global batch's mean.
        (loss * layout.world / batch.targets).backward()
        loss_sum += loss.detach()
    return loss_sum, limit_gradient_norm(model, settings.max_gradient_norm)


def agree(loss: torch.Tensor, norm: torch.Tensor, due: bool, stopping: bool, layout: Layout) -> Agreement:
    """The one exchange of a step; it also waits for the device, so that a bad gradient is known before the update.

    Args:
        loss: This process's part of the mean loss.
        norm: Of the gradient, equal on all processes.
        due: Whether this process's clock says it is time for a checkpoint.
        stopping: Whether this process was asked to stop.
        layout: The processes.
    """
    own = [float(due and layout.is_first), float(stopping), 0.0]
    values = torch.cat([loss.reshape(1), torch.tensor(own, dtype=loss.dtype, device=loss.device)])
    dist.all_reduce(values)
    values[-1] = norm
    total, any_due, any_stopping, gradient_norm = values.tolist()
    return Agreement(total, gradient_norm, any_due > 0, any_stopping > 0)


def update(optimiser: torch.optim.Optimizer, rate: float, accepted: bool) -> None:
    """Change the weights by the gradients, or leave them as they are; the gradients are gone afterwards."""
    if accepted:
        set_learning_rate(optimiser, rate)
        optimiser.step()
    optimiser.zero_grad()


@torch.no_grad()
def held_out_loss(
    model: PreTrainedModel, batches: Sequence[StepBatch], settings: TrainingSettings, layout: Layout
) -> float:
    """Mean cross entropy per target over held-out windows, without dropout; every process must call this."""
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=layout.device)
    for batch in batches:
        for tokens, targets in batch.micro_batches:
            total += window_loss(
                model, to_device(tokens, layout), to_device(targets, layout), settings.loss_chunk_tokens
            )
    dist.all_reduce(total)
    model.train()
    return float(total) / sum(batch.targets for batch in batches)


def to_device(tensor: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Copy pinned memory to the GPU while it computes; on CPU the tensor itself."""
    return tensor.to(layout.device, non_blocking=True)
