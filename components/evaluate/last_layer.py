"""The last layer at the scored places alone: of all others only its keys and values count.

Nothing follows a last layer but the output at the places that are scored, so its queries, its feed-forward part and
most of its attention are wasted at every other place. A hook before the layer lets it make keys and values for all
places, and then run for the scored ones as if those keys and values came from a cache.
"""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

# GPT-2 is not among them: it gives its output the shape of its input.
_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt_neox"})
# Others (flash attention) take no mask that says what a place alone attends to.
_ATTENTIONS = frozenset({"sdpa", "eager"})
_CACHES = ("past_key_values", "layer_past")  # what the families call the cache that a layer is given


def can_narrow(model: PreTrainedModel) -> bool:
    """Whether a model's last layer can run at some places alone."""
    return model.config.model_type in _FAMILIES and model.config._attn_implementation in _ATTENTIONS


@contextlib.contextmanager
def only_at(model: PreTrainedModel, places: torch.Tensor, prefix: Cache | None) -> Iterator[None]:
    """Make a forward pass give the last hidden states of some places alone.

    Args:
        model: One that can be narrowed.
        places: For each row the places (rows x places); a row with fewer repeats some.
        prefix: The cache that the pass is given.
    """
    layer = model.base_model.layers[-1]
    names = list(inspect.signature(layer.forward).parameters)
    past = next(name for name in _CACHES if name in names)

    def narrow(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        given = dict(zip(names, args, strict=False)) | kwargs
        keys, values = _keys_and_values(layer, given | {past: _Hold()})
        if prefix is not None:
            keys, values = prefix.layers[-1].update(keys, values)
        return (), _at(given, places, keys.shape[-2]) | {past: _Known(keys, values)}

    handle = layer.register_forward_pre_hook(narrow, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class _HeldError(Exception):
    """Ends a layer's work when its keys and values are made."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values


class _Hold:
    """A cache that takes keys and values and ends the layer's work."""

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> None:
        raise _HeldError(keys, values)


class _Known:
    """A cache that has the keys and values of every place already."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._keys, self._values = keys, values

    def update(self, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self._keys, self._values


def _keys_and_values(layer: nn.Module, given: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        layer.forward(**given)
    except _HeldError as held:
        return held.keys, held.values
    raise RuntimeError(f"{type(layer).__name__} gave no keys and values to its cache")


def _at(given: dict[str, Any], places: torch.Tensor, length: int) -> dict[str, Any]:
    """What a layer is given, at some places of each row."""
    changed = dict(given)
    changed["hidden_states"] = _picked(given["hidden_states"], places)
    if given.get("position_ids") is not None:
        changed["position_ids"] = _picked(given["position_ids"], places)
    if given.get("position_embeddings") is not None:
        changed["position_embeddings"] = tuple(_picked(part, places) for part in given["position_embeddings"])
    mask = given.get("attention_mask")
    if mask is None:
        before = length - given["hidden_states"].shape[1]
        seen = torch.arange(length, device=places.device) <= (places + before)[:, :, None]
        changed["attention_mask"] = seen[:, None]
    else:
        changed["attention_mask"] = _picked(mask[:, 0], places)[:, None]
    return changed


def _picked(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Rows x all places (one row stands for all), at some places of each row."""
    count = places.shape[0]
    numbers = torch.arange(count, device=places.device)[:, None]
    return rows.expand(count, *rows.shape[1:])[numbers, places]
