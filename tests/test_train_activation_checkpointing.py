"""Activation checkpointing: the same gradients from fewer activations kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from modelling_helpers import gradients, lora_settings, windows, write_causal_model
from train_helpers import tiny_settings

from components.train.modelling.load import load_model
from components.train.modelling.loss import window_loss

if TYPE_CHECKING:
    from components.train.distributed import Layout


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of four layers."""
    return write_causal_model(tmp_path_factory.mktemp("base"), num_hidden_layers=4)


def train_once(base: Path, layout: "Layout", settings: Any) -> tuple[dict[str, torch.Tensor], int, list[int]]:
    """Gradients, bytes saved for the backward pass, and how often each layer ran."""
    model = load_model(base, settings, layout)
    saved: dict[int, int] = {}
    runs = [0] * 4

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    for number, layer in enumerate(model.get_decoder().layers):

        def count(*_: Any, number: int = number) -> None:
            runs[number] += 1

        layer.mlp.register_forward_pre_hook(count)
    torch.manual_seed(3)  # of the adapters' dropout
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = window_loss(model, *windows())
    loss.backward()
    return gradients(model), sum(saved.values()), runs


@pytest.mark.parametrize("make", [tiny_settings, lora_settings])
def test_gradients_are_the_same_and_less_is_kept(base: Path, layout: "Layout", make: Any) -> None:
    plain, plain_bytes, plain_runs = train_once(base, layout, make())
    assert plain_runs == [1, 1, 1, 1]
    half, half_bytes, half_runs = train_once(base, layout, make(activation_checkpointing="selective"))
    assert half_runs == [2, 1, 2, 1]
    full, full_bytes, full_runs = train_once(base, layout, make(activation_checkpointing="full"))
    assert full_runs == [2, 2, 2, 2]
    assert plain.keys() == half.keys() == full.keys()
    for name, gradient in plain.items():
        assert torch.equal(half[name], gradient), name
        assert torch.equal(full[name], gradient), name
    assert full_bytes < half_bytes < plain_bytes
