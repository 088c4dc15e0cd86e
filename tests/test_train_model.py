"""The sharded model: its precision, its compiled layers, and gradients that several processes add up."""

from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from modelling_helpers import gradients, in_two_processes, windows, write_causal_model
from torch._dynamo.utils import counters
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from train_helpers import tiny_settings
from transformers import AutoModelForCausalLM

from components.train.modelling.load import load_model
from components.train.modelling.loss import window_loss
from components.train.modelling.sharding import synchronise_gradients

if TYPE_CHECKING:
    from components.train.distributed import Layout

Result = tuple[float, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model whose weights do not divide evenly."""
    return write_causal_model(tmp_path_factory.mktemp("base"), vocab_size=65, intermediate_size=33)


@pytest.fixture(scope="module")
def expected(base: Path) -> Result:
    """Loss and gradients of the plain model on all windows at once."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    loss = window_loss(model, *windows())
    loss.backward()
    return loss.item(), gradients(model)


def assert_same(result: Result, expected: Result) -> None:
    """Equal but for the order of fp32 sums."""
    assert result[0] == pytest.approx(expected[0], rel=1e-6)
    assert result[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert torch.allclose(result[1][name], gradient, rtol=1e-4, atol=1e-5), name


def accumulated(layout: "Layout", base: Path, reshard: bool) -> Result:
    """This process's share of the windows, one at a time, with one exchange of gradients at the end."""
    model = load_model(base, tiny_settings(), layout)
    for layer in model.get_decoder().layers:
        if isinstance(layer, FSDPModule):
            layer.set_reshard_after_forward(reshard)
    share = 4 // layout.world
    total = 0.0
    for number in range(share):
        synchronise_gradients(model, number == share - 1)
        row = slice(layout.rank * share + number, layout.rank * share + number + 1)
        loss = window_loss(model, *(part[row] for part in windows()))
        with CommDebugMode() as exchange:
            (loss * layout.world).backward()
        total += loss.item()
        reductions = exchange.get_comm_counts()[torch.ops.c10d._reduce_scatter_base_]
        assert reductions == (3 if number == share - 1 and layout.world > 1 else 0)  # two layers and the root
    return total, gradients(model)


def test_accumulated_gradients_are_those_of_the_whole_batch(base: Path, expected: Result, layout: "Layout") -> None:
    assert_same(accumulated(layout, base, False), expected)


@pytest.mark.parametrize("reshard", [False, True])
def test_two_processes_add_up_to_the_gradients_of_one(base: Path, expected: Result, reshard: bool) -> None:
    (first_loss, first), (second_loss, second) = in_two_processes(accumulated, base, reshard)
    assert_same((first_loss + second_loss, first), expected)
    assert_same((first_loss + second_loss, second), expected)


def test_each_layer_is_sharded_by_itself_and_the_root_last(base: Path, layout: "Layout") -> None:
    model = load_model(base, tiny_settings(precision="bf16"), layout)
    sharded = [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]
    assert sharded == ["", "model.layers.0", "model.layers.1"]
    assert all(isinstance(weight, DTensor) for weight in model.parameters())


def test_a_process_that_is_alone_and_computes_in_fp32_keeps_the_plain_model(base: Path, layout: "Layout") -> None:
    model = load_model(base, tiny_settings(), layout)
    assert not any(isinstance(module, FSDPModule) for module in model.modules())
    assert not any(isinstance(weight, DTensor) for weight in model.parameters())


def test_bf16_computes_over_fp32_weights_gradients_and_logits(base: Path, layout: "Layout") -> None:
    model = load_model(base, tiny_settings(precision="bf16"), layout)
    seen: dict[str, torch.dtype] = {}

    def look(module: torch.nn.Linear, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        seen.update(weight=module.weight.dtype, input=inputs[0].dtype, output=output.dtype)

    model.get_decoder().layers[1].mlp.up_proj.register_forward_hook(look)
    tokens, targets = windows()
    loss = window_loss(model, tokens, targets)
    loss.backward()
    assert seen == {"weight": torch.bfloat16, "input": torch.bfloat16, "output": torch.bfloat16}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert {gradient.dtype for gradient in gradients(model).values()} == {torch.float32}
    assert loss.dtype == torch.float32
    assert model.get_decoder().rotary_emb.inv_freq.dtype == torch.float32
    with torch.no_grad():
        assert model(input_ids=tokens).logits.dtype == torch.float32


@pytest.mark.parametrize("changes", [{}, {"activation_checkpointing": "full"}])
def test_compiled_layers_share_one_graph_and_give_the_same_gradients(
    base: Path,
    expected: Result,
    layout: "Layout",
    changes: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Traced as always, but run by torch's own kernels: generating others takes a compiler and half a minute.
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    torch.compiler.reset()
    counters.clear()
    model = load_model(base, tiny_settings(compile=True, **changes), layout)
    loss = window_loss(model, *windows())
    loss.backward()
    assert_same((loss.item(), gradients(model)), expected)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
