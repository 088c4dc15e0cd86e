"""Keys and values of a common beginning, computed once and used by every batch of rows that begins with it."""

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from components.evaluate.on_cpu import quick_on_cpu


def compute_prefix(model: PreTrainedModel, tokens: list[int]) -> Cache:
    """Run a beginning through the model and keep what later tokens attend to.

    Args:
        model: A causal language model.
        tokens: Ids of the beginning, at least one.

    Returns:
        A cache that can be given to any number of forward passes: none of them changes it.
    """
    known = DynamicCache(config=model.config)
    with torch.inference_mode(), quick_on_cpu(model):
        model.base_model(input_ids=torch.tensor([tokens], device=model.device), past_key_values=known, use_cache=True)
    return Cache(layers=[_Prefix(layer.keys, layer.values) for layer in known.layers])


class _Prefix(CacheLayerMixin):
    """A layer that puts its keys and values before those of each batch, and keeps nothing of the batch."""

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the beginning is there."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return beginning and batch together."""
        return _before(self.keys, key_states), _before(self.values, value_states)

    def get_seq_length(self) -> int:
        """Return the length of the beginning."""
        return int(self.keys.shape[-2])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many tokens a batch attends to, and where they start."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Return that there is no limit."""
        return -1


def _before(known: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    return torch.cat([known.expand(states.shape[0], -1, -1, -1), states], dim=-2)
