"""The loss: its value, its gradients, and how many logits it holds at once."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from modelling_helpers import gradients, in_two_processes, windows, write_causal_model
from torch.utils._python_dispatch import TorchDispatchMode
from train_helpers import CONTEXT, VOCABULARY, tiny_settings
from transformers import AutoModelForCausalLM

from components.train.data.sampler import IGNORED
from components.train.modelling.load import load_model
from components.train.modelling.loss import window_loss

if TYPE_CHECKING:
    from components.train.distributed import Layout

VOCABULARY_SIZE = VOCABULARY + 7  # no other dimension of the model has this size


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model."""
    folder = tmp_path_factory.mktemp("base")
    return write_causal_model(folder, vocab_size=VOCABULARY_SIZE, tie_word_embeddings=request.param)


class LargestLogits(TorchDispatchMode):
    """Sees every tensor that any operation makes, in the forward and the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            # The head's weights and their gradient are seen as (width, vocabulary) too.
            if isinstance(tensor, torch.Tensor) and tensor.shape[-1:] == (VOCABULARY_SIZE,) and len(tensor) != 32:
                self.rows = max(self.rows, tensor.numel() // VOCABULARY_SIZE)
        return result


def loss_and_gradients(
    layout: "Layout", base: Path, chunk_tokens: int | None, precision: str = "fp32"
) -> tuple[float, dict[str, torch.Tensor]]:
    """Of this process's windows."""
    model = load_model(base, tiny_settings(precision=precision), layout)
    share = 4 // layout.world
    tokens, targets = (part[layout.rank * share :][:share] for part in windows())
    loss = window_loss(model, tokens, targets, chunk_tokens)
    (loss * layout.world / 7).backward()  # a gradient that comes in scaled must be scaled
    return loss.item(), gradients(model)


@pytest.fixture(scope="module")
def expected(base: Path) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the plain model, neither sharded nor by chunks."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    loss = window_loss(model, *windows())
    (loss / 7).backward()
    return loss.item(), gradients(model)


def test_it_is_the_sum_of_the_cross_entropies_that_count(base: Path, layout: "Layout") -> None:
    model = load_model(base, tiny_settings(), layout)
    tokens, targets = windows()
    with torch.no_grad():
        probabilities = model(input_ids=tokens).logits.softmax(-1)
        loss = window_loss(model, tokens, targets)
        unsharded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        assert window_loss(unsharded, tokens, targets).item() == pytest.approx(loss.item(), rel=1e-6)
    counted = [
        -math.log(probabilities[window, place, targets[window, place]])
        for window in range(4)
        for place in range(CONTEXT)
        if targets[window, place] != IGNORED
    ]
    assert len(counted) == 4 * CONTEXT - 4 - 5
    assert loss.item() == pytest.approx(sum(counted), rel=1e-5)


@pytest.mark.parametrize("chunk_tokens", [None, 1, 7, 16, 64, 1000])
def test_chunks_give_the_loss_and_gradients_of_the_whole(
    base: Path, layout: "Layout", expected: tuple[float, dict[str, torch.Tensor]], chunk_tokens: int | None
) -> None:
    chunked, found = loss_and_gradients(layout, base, chunk_tokens)
    assert chunked == pytest.approx(expected[0], rel=1e-6)
    assert found.keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert torch.allclose(found[name], gradient, rtol=1e-5, atol=1e-6), name


def test_chunks_in_bf16_are_as_near_to_fp32_as_the_whole_is(base: Path, layout: "Layout") -> None:
    _, exact = loss_and_gradients(layout, base, None)
    _, plain = loss_and_gradients(layout, base, None, "bf16")
    _, chunked = loss_and_gradients(layout, base, 4, "bf16")

    def error(found: dict[str, torch.Tensor]) -> float:
        return sum(((found[name] - gradient).norm() / gradient.norm()).item() for name, gradient in exact.items())

    assert error(chunked) < 1.2 * error(plain)


def test_two_processes_give_the_gradients_of_one_by_chunks_too(
    base: Path, expected: tuple[float, dict[str, torch.Tensor]]
) -> None:
    results = in_two_processes(loss_and_gradients, base, 7)
    assert sum(part for part, _ in results) == pytest.approx(expected[0], rel=1e-6)
    for _, found in results:
        for name, gradient in expected[1].items():
            assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize(("chunk_tokens", "most"), [(None, 4 * CONTEXT), (7, 7), (16, 16)])
def test_no_more_logits_than_asked_are_ever_held(
    tmp_path: Path, layout: "Layout", chunk_tokens: int | None, most: int
) -> None:
    folder = write_causal_model(tmp_path, vocab_size=VOCABULARY_SIZE)
    model = load_model(folder, tiny_settings(), layout)
    with LargestLogits() as largest:
        window_loss(model, *windows(), chunk_tokens).backward()
    assert largest.rows == most
    with LargestLogits() as largest, torch.no_grad():
        window_loss(model, *windows(), chunk_tokens)
    assert largest.rows == most


def test_the_held_out_loss_is_the_same_by_chunks(base: Path, layout: "Layout") -> None:
    model = load_model(base, tiny_settings(), layout)
    with torch.no_grad():
        whole, chunked = (window_loss(model, *windows(), chunk_tokens) for chunk_tokens in (None, 7))
    assert chunked.item() == pytest.approx(whole.item(), rel=1e-6)
    assert not chunked.requires_grad
