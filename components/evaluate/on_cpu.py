"""What makes a forward pass on a CPU quicker and changes no result beyond rounding.

Matrix products go to oneDNN: PyTorch gives them to MKL, which runs at half of that speed on AMD's processors. And the
feed-forward parts take a slice of the tokens at a time, so that what lies between their matrices stays in the cache.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

# Families whose feed-forward part treats each token by itself, whatever the shape; one of experts does not.
_SLICED = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox"})
_SLICE = 512
_LEAST_TOKENS = 16  # for fewer, oneDNN's own preparations take longer than it saves

Forward = Callable[[torch.Tensor], torch.Tensor]


@contextlib.contextmanager
def quick_on_cpu(model: PreTrainedModel) -> Iterator[None]:
    """Let a model that is on a CPU compute quicker; no weights are copied, and afterwards it is as it was.

    Args:
        model: Of any family; what it has no such parts of stays as it is, and so does a model on another device.
    """
    changed: list[nn.Module] = []
    if model.device.type == "cpu":
        for name, part in model.named_modules():
            if type(part) is nn.Linear and part.weight.dtype == torch.float32 and _has_onednn():
                part.forward = partial(_linear, part)
                changed.append(part)
            elif name.endswith(".mlp") and model.config.model_type in _SLICED:
                part.forward = partial(_sliced, part.forward)
                changed.append(part)
    try:
        yield
    finally:
        for part in changed:
            del part.forward  # the class has its own


def _linear(layer: nn.Linear, states: torch.Tensor) -> torch.Tensor:
    if states[..., 0].numel() < _LEAST_TOKENS:
        return nn.functional.linear(states, layer.weight, layer.bias)
    # What torch.compile makes of a linear layer on a CPU; it takes the weights as they are.
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, layer.weight, layer.bias, "none", [], "")
    return found


def _sliced(forward: Forward, states: torch.Tensor) -> torch.Tensor:
    tokens = states.flatten(0, -2)
    if len(tokens) <= _SLICE:
        return forward(states)
    return torch.cat([forward(part) for part in tokens.split(_SLICE)]).view_as(states)


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
