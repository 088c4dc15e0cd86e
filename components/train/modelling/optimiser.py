"""AdamW and the gradient norm, over sharded parameters."""

import torch
from torch.distributed.tensor import DTensor

from components.train.settings import TrainingSettings


def build_optimiser(model: torch.nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW over the parameters that are trained; fused: one kernel for the whole update, on CPU as on GPU."""
    return torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def limit_gradient_norm(model: torch.nn.Module, limit: float | None) -> torch.Tensor:
    """The gradients' total L2 norm over all processes; scales them down to `limit` first seen above it."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if limit is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm
