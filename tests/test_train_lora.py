"""Adapters: what is trained, how it starts, and that nothing depends on the number of processes."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from modelling_helpers import gradients, in_two_processes, lora_settings, whole, windows, write_causal_model
from train_helpers import tiny_settings

from components.common.errors import InputError
from components.train.modelling.load import load_model
from components.train.modelling.lora import uses_lora
from components.train.modelling.loss import window_loss
from components.train.modelling.optimiser import build_optimiser

if TYPE_CHECKING:
    from components.train.distributed import Layout

TARGETS = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model whose weights do not divide evenly."""
    return write_causal_model(tmp_path_factory.mktemp("base"), vocab_size=65, intermediate_size=33)


def test_only_fine_tuning_by_lora_uses_it() -> None:
    assert uses_lora(lora_settings())
    assert not uses_lora(lora_settings(method="full"))
    assert not uses_lora(tiny_settings())


def test_only_adapters_are_trained_and_the_start_is_the_base_model(base: Path, layout: "Layout") -> None:
    settings = lora_settings(lora_targets=TARGETS)
    model = load_model(base, settings, layout)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {
        f"model.layers.{layer}.{place}.lora_{matrix}.default.weight"
        for layer in (0, 1)
        for place in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
        for matrix in "AB"
    }
    plain = load_model(base, tiny_settings(), layout)
    loss = window_loss(model, *windows())
    assert loss.item() == window_loss(plain, *windows()).item()
    loss.backward()
    assert gradients(model).keys() == trained


def test_adapters_start_as_peft_starts_them(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path, hidden_size=256)
    model = load_model(folder, lora_settings(lora_rank=64), layout)
    for name, weight in model.named_parameters():
        if ".lora_A." in name:
            bound = 256**-0.5  # Kaiming, uniform, a = sqrt(5): 1 / sqrt(inputs)
            values = whole(weight)
            assert weight.dtype == torch.float32
            assert 0.99 * bound < values.abs().max() <= bound
            assert abs(values.mean()) < 0.02 * bound
            assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
        elif ".lora_B." in name:
            assert not whole(weight).any()


def test_the_seed_and_the_place_decide_how_an_adapter_starts(base: Path, layout: "Layout") -> None:
    def first_values(seed: int) -> list[torch.Tensor]:
        model = load_model(base, lora_settings(seed=seed), layout)
        return [
            whole(weight) for name, weight in model.named_parameters() if name.endswith("q_proj.lora_A.default.weight")
        ]

    torch.manual_seed(5)
    one = first_values(0)
    torch.manual_seed(6)
    again, other = first_values(0), first_values(1)
    assert all(torch.equal(*pair) for pair in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    assert not torch.equal(one[0], one[1])


def trained(layout: "Layout", base: Path) -> tuple[list[float], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Losses of three steps without dropout, and the adapters before and after."""
    settings = lora_settings(lora_targets=TARGETS, lora_dropout=0.0)
    model = load_model(base, settings, layout)
    optimiser = build_optimiser(model, settings)
    before = {name: whole(weight).clone() for name, weight in model.named_parameters() if weight.requires_grad}
    share = 4 // layout.world
    tokens, targets = (part[layout.rank * share :][:share] for part in windows())
    losses = []
    for _ in range(3):
        loss = window_loss(model, tokens, targets)
        (loss * layout.world / 50).backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses, before, {name: whole(weight) for name, weight in model.named_parameters() if weight.requires_grad}


def test_two_processes_train_the_adapters_of_one(base: Path, layout: "Layout") -> None:
    losses, before, after = trained(layout, base)
    assert losses[2] < losses[1] < losses[0]
    results = in_two_processes(trained, base)
    assert [sum(pair) for pair in zip(*(found for found, _, _ in results), strict=True)] == pytest.approx(losses, 1e-5)
    for _, start, end in results:
        for name in before:
            assert torch.equal(start[name], before[name]), name  # rows that no process shares evenly, too
            assert torch.allclose(end[name], after[name], atol=1e-4), name


def test_dropout_changes_the_loss_of_adapters_only_in_training(base: Path, layout: "Layout") -> None:
    model = load_model(base, lora_settings(lora_dropout=0.5), layout)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                weight.fill_(0.1)
        assert len({window_loss(model, *windows()).item() for _ in range(3)}) == 3
        model.eval()
        assert len({window_loss(model, *windows()).item() for _ in range(3)}) == 1


@pytest.mark.parametrize("target", ["query", "lm_head", "embed_tokens", ".*"])
def test_an_unknown_target_is_refused_with_those_there_are(base: Path, layout: "Layout", target: str) -> None:
    with pytest.raises(InputError) as error:
        load_model(base, lora_settings(lora_targets=["q_proj", target]), layout)
    assert str(error.value) == (
        f"lora_targets names {target!r}, but the linear layers of the model's decoder layers are "
        "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj."
    )
