"""The course of a run: steps, what each takes, and the learning rate."""

import pytest
from train_helpers import tiny_settings

from components.train.data.schedule import Plan


def test_the_last_batch_of_an_epoch_holds_what_is_left() -> None:
    plan = Plan(windows=21, settings=tiny_settings())
    assert (plan.steps_per_epoch, plan.steps) == (3, 6)
    assert [plan.batch(step) for step in (0, 2, 3)] == [(0, 0, 8), (0, 16, 21), (1, 0, 8)]


def test_fewer_windows_than_a_batch_make_one_step_per_epoch() -> None:
    plan = Plan(windows=3, settings=tiny_settings())
    assert [plan.batch(step) for step in range(plan.steps)] == [(0, 0, 3), (1, 0, 3)]


@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.3])
def test_the_learning_rate_is_that_of_transformers_cosine_schedule(warmup: float) -> None:
    import torch
    from transformers import get_cosine_schedule_with_warmup

    plan = Plan(windows=400, settings=tiny_settings(warmup_fraction=warmup, learning_rate=2e-5))
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-5)
    theirs = get_cosine_schedule_with_warmup(optimiser, -int(-(plan.steps * warmup) // 1), plan.steps)
    for step in range(plan.steps):
        assert plan.learning_rate(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-20)
        optimiser.step()
        theirs.step()


def test_a_constant_schedule_stays_at_the_peak_after_the_warm_up() -> None:
    plan = Plan(windows=80, settings=tiny_settings(schedule="constant", warmup_fraction=0.1))
    assert [plan.learning_rate(step) for step in (0, 1, 2, 19)] == [0, 0.005, 0.01, 0.01]


def test_held_out_windows_are_measured_at_the_end_of_epochs_or_at_intervals_and_after_the_last_step() -> None:
    by_epoch = Plan(windows=21, settings=tiny_settings())
    assert [step for step in range(by_epoch.steps) if by_epoch.validates(step)] == [2, 5]
    by_steps = Plan(windows=21, settings=tiny_settings(validate_every_steps=4))
    assert [step for step in range(by_steps.steps) if by_steps.validates(step)] == [3, 5]


def test_a_step_is_described_as_a_person_counts() -> None:
    assert Plan(windows=21, settings=tiny_settings()).describe(5) == "step 6 of 6 (windows 17 to 21 of epoch 2)"
