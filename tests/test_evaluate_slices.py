"""Feed-forward parts take a few tokens at a time, and give what they would give at once."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from components.evaluate import slices
from components.evaluate.slices import in_slices

CONFIGS: list[Any] = [
    LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2),
    GPTNeoXConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2),
    GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_the_result_is_the_same_and_afterwards_the_model_is_as_it_was(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "_TOKENS", 10)
    model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._from_config(config).eval()
    seen: list[int] = []
    parts = [part for name, part in model.named_modules() if name.endswith(".mlp")]
    for part in parts:
        first = next(module for module in part.modules() if module is not part)
        first.register_forward_hook(lambda module, given, result: seen.append(given[0].shape[:-1].numel()))
    tokens = torch.randint(0, 64, (3, 7))
    with torch.inference_mode():
        at_once = model.base_model(tokens).last_hidden_state
        assert set(seen) == {21}
        seen.clear()
        with in_slices(model):
            sliced = model.base_model(tokens).last_hidden_state
    assert torch.allclose(at_once, sliced, atol=1e-6)
    assert seen == [10, 10, 1] * 2
    assert all("forward" not in vars(part) for part in parts)


def test_a_failure_leaves_the_model_as_it_was() -> None:
    model = MODEL_FOR_CAUSAL_LM_MAPPING[LlamaConfig]._from_config(CONFIGS[0])
    with pytest.raises(MemoryError), in_slices(model):
        raise MemoryError
    parts: list[nn.Module] = [part for name, part in model.named_modules() if name.endswith(".mlp")]
    assert parts and all("forward" not in vars(part) for part in parts)
