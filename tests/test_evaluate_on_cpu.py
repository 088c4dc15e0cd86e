"""A forward pass on a CPU that is quicker gives what the plain one gives, and leaves the model as it was."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, PreTrainedModel, Qwen2MoeConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from components.evaluate import on_cpu
from components.evaluate.on_cpu import quick_on_cpu

CONFIGS: list[Any] = [
    LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2),
    GPTNeoXConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2),
    GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_the_result_is_the_same_and_afterwards_the_model_is_as_it_was(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_cpu, "_SLICE", 10)
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
        with quick_on_cpu(model):
            sliced = model.base_model(tokens).last_hidden_state
    assert torch.allclose(at_once, sliced, atol=1e-5)
    assert seen == [10, 10, 1] * 2
    assert all("forward" not in vars(part) for part in model.modules())


def test_a_mixture_of_experts_gives_the_same_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_cpu, "_SLICE", 10)
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2MoeConfig(
        vocab_size=64,
        **size,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    )
    model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[Qwen2MoeConfig]._from_config(config).eval()
    tokens = torch.randint(0, 64, (3, 7))
    with torch.inference_mode():
        plain = model.base_model(tokens).last_hidden_state
        with quick_on_cpu(model):
            quick = model.base_model(tokens).last_hidden_state
    assert torch.allclose(plain, quick, atol=1e-5)


def test_few_tokens_and_other_types_are_left_to_torch() -> None:
    layer = nn.Linear(24, 8)
    for tokens in (1, 15, 16, 40):
        states = torch.randn(tokens, 24)
        assert torch.allclose(on_cpu._linear(layer, states), layer(states), atol=1e-5)
    half: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[LlamaConfig]._from_config(CONFIGS[0], dtype=torch.bfloat16)
    with quick_on_cpu(half):
        assert not any("forward" in vars(part) for part in half.modules() if isinstance(part, nn.Linear))


def test_without_onednn_torch_computes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[LlamaConfig]._from_config(CONFIGS[0])
    with quick_on_cpu(model):
        assert not any("forward" in vars(part) for part in model.modules() if isinstance(part, nn.Linear))


def test_a_failure_leaves_the_model_as_it_was() -> None:
    model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[LlamaConfig]._from_config(CONFIGS[0])
    with pytest.raises(MemoryError), quick_on_cpu(model):
        assert any("forward" in vars(part) for part in model.modules())
        raise MemoryError
    assert not any("forward" in vars(part) for part in model.modules())
