"""AdamW over the trained weights, and the norm of their gradients."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from modelling_helpers import gradients, in_two_processes, lora_settings, whole, windows, write_causal_model
from train_helpers import tiny_settings
from transformers import AutoModelForCausalLM

from components.train.modelling.load import load_model
from components.train.modelling.loss import window_loss
from components.train.modelling.optimiser import build_optimiser, limit_gradient_norm, set_learning_rate

if TYPE_CHECKING:
    from components.train.distributed import Layout


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model whose weights do not divide evenly."""
    return write_causal_model(tmp_path_factory.mktemp("base"), vocab_size=65)


def three_steps(layout: "Layout", base: Path, limit: float | None) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Gradient norms, and the weights afterwards."""
    settings = tiny_settings(weight_decay=0.1, adam_beta2=0.95)
    model = load_model(base, settings, layout)
    optimiser = build_optimiser(model, settings)
    norms = []
    share = 4 // layout.world
    tokens, targets = (part[layout.rank * share :][:share] for part in windows())
    for step in range(3):
        (window_loss(model, tokens, targets) * layout.world).backward()
        norms.append(limit_gradient_norm(model, limit).item())
        set_learning_rate(optimiser, 0.01 * (step + 1))
        optimiser.step()
        optimiser.zero_grad()
    return norms, {name: whole(weight) for name, weight in model.named_parameters()}


@pytest.mark.parametrize("limit", [None, 0.5])
def test_steps_are_those_of_plain_adamw_on_one_process_and_on_two(
    base: Path, layout: "Layout", limit: float | None
) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    plain = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1, fused=False)
    norms = []
    for step in range(3):
        window_loss(model, *windows()).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), limit or float("inf")).item())
        plain.param_groups[0]["lr"] = 0.01 * (step + 1)
        plain.step()
        plain.zero_grad()
    for found, weights in (three_steps(layout, base, limit), *in_two_processes(three_steps, base, limit)):
        assert found == pytest.approx(norms, rel=1e-4)
        for name, weight in model.named_parameters():
            assert torch.allclose(weights[name], weight.detach(), atol=2e-5), name


def test_frozen_weights_are_left_out(base: Path, layout: "Layout") -> None:
    settings = lora_settings()
    model = load_model(base, settings, layout)
    optimiser = build_optimiser(model, settings)
    (group,) = optimiser.param_groups
    assert group["fused"]
    assert {id(weight) for weight in group["params"]} == {
        id(weight) for name, weight in model.named_parameters() if ".lora_" in name
    }
    assert len(group["params"]) == 2 * 2 * 2  # A and B of two layers in two decoder layers
    window_loss(model, *windows()).backward()
    norm = limit_gradient_norm(model, None)
    squares = [gradient.pow(2).sum() for gradient in gradients(model).values()]
    assert norm.item() == pytest.approx(torch.stack(squares).sum().sqrt().item(), rel=1e-5)
