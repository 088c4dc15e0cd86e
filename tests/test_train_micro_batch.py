"""The largest micro-batch that fits, and that looking for it leaves no trace."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from modelling_helpers import in_two_processes, lora_settings, whole, windows, write_causal_model
from train_helpers import tiny_settings

from components.common.errors import InputError
from components.train.modelling.load import load_model
from components.train.modelling.loss import window_loss
from components.train.modelling.micro_batch import (
    find_micro_batch,
    largest_that_fits,
    pending_state_bytes,
    run_passes,
)
from components.train.modelling.optimiser import build_optimiser

if TYPE_CHECKING:
    from components.train.distributed import Layout


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model."""
    return write_causal_model(tmp_path_factory.mktemp("base"))


class Device:
    """Memory that a model fills: what is always there, what a window takes, what accumulation takes, a reduction."""

    def __init__(self, memory: int, fixed: int, window: int, accumulating: int = 0, reduction: int = 0) -> None:
        self.memory = memory
        self.fixed = fixed
        self.window = window
        self.accumulating = accumulating
        self.reduction = reduction
        self.tried: list[tuple[int, int]] = []

    def excess(self, size: int, passes: int) -> int:
        """What a measurement gives; a device that is full would not come back."""
        self.tried.append((size, passes))
        used = self.fixed + max(self.window * size, self.reduction if size else 0) + self.accumulating * (passes > 1)
        assert used <= self.memory * 1.1, f"{size} windows, {passes} passes: out of memory"
        return used - self.memory


@pytest.mark.parametrize(
    ("share", "device", "expected"),
    [
        (16, Device(memory=1000, fixed=100, window=10), 16),
        (16, Device(memory=1000, fixed=100, window=100), 8),
        (12, Device(memory=1000, fixed=100, window=200), 4),
        (7, Device(memory=1000, fixed=100, window=200), 1),
        (1, Device(memory=1000, fixed=100, window=200), 1),
        # The whole share fits because nothing is accumulated; three quarters of it would not.
        (16, Device(memory=1000, fixed=100, window=50, accumulating=800), 16),
        (16, Device(memory=1000, fixed=100, window=60, accumulating=300), 8),
        (16, Device(memory=1000, fixed=100, window=60, accumulating=500), 4),
        # Small sizes all need the same, for the reduction: the line through them says nothing of large ones.
        (64, Device(memory=1000, fixed=100, window=20, reduction=300), 32),
    ],
)
def test_the_largest_divisor_that_fits_is_found(share: int, device: Device, expected: int) -> None:
    assert largest_that_fits(share, device.excess) == expected
    assert share % expected == 0


def test_no_size_is_tried_that_was_predicted_not_to_fit() -> None:
    device = Device(memory=1000, fixed=100, window=100)
    assert largest_that_fits(64, device.excess) == 8
    assert max(size for size, _ in device.tried) == 8


def test_a_model_that_does_not_fit_is_refused_with_what_is_missing() -> None:
    with pytest.raises(InputError, match=r"Not even a micro-batch of one window fits .*, 50 bytes are missing"):
        largest_that_fits(8, Device(memory=1000, fixed=900, window=150).excess)
    with pytest.raises(InputError, match=r"Not even .*, 60 bytes are missing"):
        largest_that_fits(8, Device(memory=1000, fixed=900, window=60, accumulating=100).excess)


def test_a_number_is_taken_as_it_is(base: Path, layout: "Layout") -> None:
    settings = tiny_settings(micro_batch_size=2)
    model = load_model(base, settings, layout)
    assert find_micro_batch(model, build_optimiser(model, settings), settings, 16, layout) == 2


@pytest.mark.parametrize(("width", "expected"), [(16, 96), (512, 16), (1024, 8), (8192, 1), (100_000, 1)])
def test_on_a_cpu_it_is_the_largest_divisor_of_8192_tokens(
    base: Path, layout: "Layout", width: int, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tiny_settings(micro_batch_size="auto", global_batch_size=96)
    model = load_model(base, settings, layout)
    with caplog.at_level("INFO"):
        assert find_micro_batch(model, build_optimiser(model, settings), settings, width, layout) == expected
    assert f"{expected} windows of {width} tokens, {96 // expected} times a step" in caplog.text


def passes_leave_no_trace(layout: "Layout", base: Path) -> tuple[int, int]:
    """Try passes as for `auto`; the bytes of optimiser states that are still to come, before and after a step."""
    settings = lora_settings(micro_batch_size="auto")
    model = load_model(base, settings, layout)
    optimiser = build_optimiser(model, settings)
    before = {name: whole(weight).clone() for name, weight in model.named_parameters()}
    state = torch.get_rng_state()
    run_passes(model, settings, size=2, passes=2, width=16, layout=layout)
    run_passes(model, settings, size=4, passes=1, width=16, layout=layout)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(whole(weight), before[name]) for name, weight in model.named_parameters())
    assert not optimiser.state
    pending = pending_state_bytes(optimiser)
    window_loss(model, *windows()).backward()
    optimiser.step()
    return pending, pending_state_bytes(optimiser)


def test_trials_leave_no_trace_and_states_to_come_are_counted(base: Path, layout: "Layout") -> None:
    total = 2 * 2 * 8 * (32 + 32) * 4 - 2 * 8 * 16 * 4  # q: 32 to 32, v: 32 to 16, rank 8, in two layers
    pending, later = passes_leave_no_trace(layout, base)
    assert (pending, later) == (2 * total, 0)
    halves = in_two_processes(passes_leave_no_trace, base)
    assert [half for half, _ in halves] == [total, total]
