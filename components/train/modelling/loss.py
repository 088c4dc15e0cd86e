"""The loss: next-token cross entropy, with all logits at once or a few tokens' at a time."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from components.train.data.sampler import IGNORED

_METHOD = "window_loss"


def window_loss(
    model: PreTrainedModel, tokens: torch.Tensor, targets: torch.Tensor, chunk_tokens: int | None = None
) -> torch.Tensor:
    """Sum of next-token cross entropies, natural logarithm.

    Args:
        model: Sharded, or any causal model whose logits are its head's output.
        tokens: int64, shape (windows, width).
        targets: int64, same shape: the next token at each place, or IGNORED where none counts.
        chunk_tokens: Most tokens whose logits are in memory at once, in the forward and the backward pass; None: all.

    Returns:
        A float32 scalar.
    """
    own = getattr(model, _METHOD, None)
    if own is None:
        return _forward(model, tokens, targets, chunk_tokens)
    return own(tokens, targets, chunk_tokens)


def register_loss(model: PreTrainedModel) -> None:
    """Make the loss part of the sharded model's forward pass: its head has no whole weights outside of it."""

    def forward(tokens: torch.Tensor, targets: torch.Tensor, chunk_tokens: int | None) -> torch.Tensor:
        return _forward(model, tokens, targets, chunk_tokens)

    setattr(model, _METHOD, forward)
    register_fsdp_forward_method(model, _METHOD)


def _forward(
    model: PreTrainedModel, tokens: torch.Tensor, targets: torch.Tensor, chunk_tokens: int | None
) -> torch.Tensor:
    # No attention mask: padding is on the right, where causal attention never looks back from, and SDPA keeps its
    # fast path.
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    hidden = decoder(input_ids=tokens, attention_mask=None, use_cache=False).last_hidden_state.flatten(0, 1)
    targets = targets.flatten()
    if chunk_tokens is None or chunk_tokens >= len(targets):
        return _loss(head, hidden, targets)
    if torch.is_grad_enabled():
        weights = [weight for weight in head.parameters() if weight.requires_grad]
        return _ChunkedLoss.apply(head, hidden, targets, chunk_tokens, *weights)
    pairs = zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    return torch.stack([_loss(head, *pair) for pair in pairs]).sum()


def _loss(head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(head(hidden).float(), targets, reduction="sum", ignore_index=IGNORED)


class _ChunkedLoss(torch.autograd.Function):
    """Takes each chunk's gradients right after its loss, so that its logits can go before the next ones come.

    The loss is the end of the graph, so nothing is computed twice: the backward pass only scales what is there. The
    head's gradient is added up in fp32, whatever the head computes in.
    """

    @staticmethod
    def forward(
        ctx: Any,
        head: torch.nn.Module,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        chunk_tokens: int,
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        ctx.hidden_gradient = torch.empty_like(hidden)
        ctx.weight_gradients = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        ctx.dtypes = [weight.dtype for weight in weights]
        chunks = zip(*(rows.split(chunk_tokens) for rows in (hidden, targets, ctx.hidden_gradient)), strict=True)
        for rows, wanted, rows_gradient in chunks:
            with torch.enable_grad():
                leaf = rows.detach().requires_grad_()
                loss = _loss(head, leaf, wanted)
                own, *gradients = torch.autograd.grad(loss, [leaf, *weights])
            total += loss.detach()
            rows_gradient.copy_(own)
            for kept, gradient in zip(ctx.weight_gradients, gradients, strict=True):
                kept += gradient
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        pairs = zip(ctx.weight_gradients, ctx.dtypes, strict=True)
        weights = [gradient.mul_(scale).to(dtype) for gradient, dtype in pairs]
        hidden = ctx.hidden_gradient.mul_(scale)
        del ctx.weight_gradients, ctx.hidden_gradient
        return None, hidden, None, None, *weights
