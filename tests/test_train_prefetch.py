"""Batches drawn in a thread: the same ones, their errors, and no thread left."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from train_helpers import CONTEXT, documents, open_corpus, tiny_settings, write_corpus

from components.common.errors import InputError
from components.train.data.batches import step_batch
from components.train.data.prefetch import Prefetcher
from components.train.data.sampler import Extent, Windows
from components.train.data.schedule import Plan
from components.train.data.windows import WindowSampler


class Fake:
    """A sampler whose windows hold their epoch and position; some take long, one cannot be had."""

    windows_per_epoch = 24
    padding_id = 0

    def __init__(self, bad: int = -1, seconds: float = 0.0) -> None:
        self.bad, self.seconds = bad, seconds
        self.drawn: list[int] = []

    def extent(self, epoch: int, first: int, last: int) -> Extent:
        return Extent(2, last - first, 0)

    def draw(self, epoch: int, positions: NDArray[np.int64], width: int) -> Windows:
        time.sleep(self.seconds)
        if self.bad in positions:
            raise InputError("Token shard 7 is corrupt")
        self.drawn.append(int(positions[0]))
        tokens = np.stack([np.full(len(positions), epoch), positions], axis=1)
        return Windows(tokens, tokens)


def prefetch(sampler: Fake, first_step: int = 0) -> Prefetcher:
    return Prefetcher(Plan(24, tiny_settings()), sampler, first_step, 4, 0, 1)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]


def test_batches_are_those_of_the_steps_from_the_first_one_asked_for(tmp_path: Path) -> None:
    corpus = open_corpus(write_corpus(f"file://{tmp_path}", [documents(21)]))
    sampler = WindowSampler(corpus, CONTEXT, 2, False, seed=0)
    plan = Plan(21, tiny_settings())
    with Prefetcher(plan, sampler, 2, 2, 1, 2) as batches:
        drawn = list(batches)
    expected = [step_batch(plan, sampler, step, 2, 1, 2) for step in range(2, plan.steps)]
    assert len(drawn) == len(expected) == 4
    for ours, theirs in zip(drawn, expected, strict=True):
        assert (ours.targets, ours.tokens, ours.padding) == (theirs.targets, theirs.tokens, theirs.padding)
        for (tokens, targets), (same_tokens, same_targets) in zip(
            ours.micro_batches, theirs.micro_batches, strict=True
        ):
            assert torch.equal(tokens, same_tokens)
            assert torch.equal(targets, same_targets)


def test_an_error_comes_out_at_its_step_and_the_steps_before_are_whole() -> None:
    with prefetch(Fake(bad=17)) as batches:
        for step in range(2):
            assert next(batches).micro_batches[0][0][0].tolist() == [0, 8 * step]
        for _ in range(2):
            with pytest.raises(InputError, match="Token shard 7 is corrupt"):
                next(batches)
    assert threads() == []


def test_no_more_than_a_few_steps_are_drawn_ahead() -> None:
    sampler = Fake()
    with prefetch(sampler) as batches:
        next(batches)
        wait_until(lambda: len(sampler.drawn) >= 2)
        time.sleep(0.3)
        assert len(sampler.drawn) <= 4
    assert threads() == []


def test_leaving_early_leaves_no_thread() -> None:
    with pytest.raises(ZeroDivisionError), prefetch(Fake(seconds=0.05)) as batches:
        next(batches)
        raise ZeroDivisionError
    assert threads() == []


def test_a_run_that_is_complete_has_no_batches() -> None:
    with prefetch(Fake(), first_step=6) as batches:
        assert list(batches) == []


def test_the_wait_for_the_last_batch_is_known() -> None:
    sampler = Fake(seconds=0.3)
    with prefetch(sampler) as batches:
        next(batches)
        assert batches.waited_seconds > 0.25
        wait_until(lambda: len(sampler.drawn) >= 3)  # then the second is there
        next(batches)
        assert batches.waited_seconds < 0.25
