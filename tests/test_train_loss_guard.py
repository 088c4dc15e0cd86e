"""What a bad loss does."""

import math
from typing import Any

import pytest
from train_helpers import tiny_settings

from components.common.errors import TrainingError
from components.train.loss_guard import LossGuard

STEADY = [{"loss": 2.0} for _ in range(30)]


def guard(history: list[dict[str, Any]] = STEADY, **changes: Any) -> LossGuard:
    return LossGuard(tiny_settings(**changes), history)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_and_names_step_and_windows(bad: float) -> None:
    with pytest.raises(TrainingError, match=rf"The loss is {bad} at step 7 \(windows 1 to 8\); lower learning_rate or"):
        guard().accepts(bad, 1.0, "step 7 (windows 1 to 8)")


def test_a_gradient_that_is_no_number_ends_the_run() -> None:
    with pytest.raises(TrainingError, match="The gradient norm is nan at step 1"):
        guard().accepts(2.0, math.nan, "step 1")


def test_without_a_factor_no_loss_is_a_spike() -> None:
    assert guard().accepts(2000.0, 1.0, "step 1")


def test_a_spike_is_measured_against_the_median_of_the_steps_before() -> None:
    watching = guard(loss_spike_factor=1.5)
    assert watching.accepts(2.9, 1.0, "step 1")
    with pytest.raises(TrainingError, match=r"The loss jumps to 3\.1000, more than 1\.5 times the usual 2\.0000, at"):
        watching.accepts(3.1, 1.0, "step 2")


def test_the_first_steps_are_no_spikes() -> None:
    assert guard(STEADY[:19], loss_spike_factor=1.5).accepts(50.0, 1.0, "step 20")


def test_skipped_steps_are_counted_across_a_resumption_and_limited() -> None:
    history = [*STEADY, {"loss": math.nan, "skipped": True}]
    skipping = guard(history, on_bad_loss="skip", max_skipped_steps=2)
    assert not skipping.accepts(math.nan, 1.0, "step 32")
    assert skipping.skipped == 2
    with pytest.raises(TrainingError, match=r"more than max_skipped_steps \(2\)"):
        skipping.accepts(math.nan, 1.0, "step 33")


def test_a_skipped_spike_does_not_change_what_is_usual() -> None:
    skipping = guard(on_bad_loss="skip", loss_spike_factor=1.5)
    assert [skipping.accepts(9.0, 1.0, "step") for _ in range(15)] == [False] * 15
    assert skipping.accepts(2.0, 1.0, "step")
