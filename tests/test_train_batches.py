"""The layout of a step: the same windows whatever the processes and micro-batches, each exactly once."""

from pathlib import Path

import numpy as np
import pytest
from train_helpers import CONTEXT, documents, open_corpus, tiny_settings, write_corpus

from components.train.data.batches import StepBatch, step_batch
from components.train.data.corpus import Corpus
from components.train.data.mixed import MixedSampler
from components.train.data.packed import PackedSampler
from components.train.data.sampler import IGNORED, Sampler
from components.train.data.schedule import Plan
from components.train.data.windows import WindowSampler

PADDING = 2


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return open_corpus(write_corpus(f"file://{tmp_path}", [documents(20), documents(33, seed=1)]))


def samplers(corpus: Corpus) -> dict[str, Sampler]:
    return {
        "window": WindowSampler(corpus, CONTEXT, PADDING, False, seed=0),
        "masked": WindowSampler(corpus, CONTEXT, PADDING, True, seed=0),
        "packed": PackedSampler(corpus, CONTEXT, 1, PADDING, seed=0),
        "mixed": MixedSampler([corpus, corpus], [2, 1], CONTEXT, PADDING, True, seed=0),
    }


def rows(parts: list[StepBatch]) -> list[list[int]]:
    """Tokens of all rows that hold a window."""
    return [
        tokens.tolist()
        for part in parts
        for batch in part.micro_batches
        for tokens, targets in zip(*batch, strict=True)
        if (targets != IGNORED).any()
    ]


@pytest.mark.parametrize("name", ["window", "masked", "packed", "mixed"])
@pytest.mark.parametrize(("world", "micro"), [(1, 8), (1, 2), (2, 4), (4, 1), (8, 1)])
def test_a_step_holds_the_same_windows_whatever_the_processes_and_micro_batches(
    corpus: Corpus, name: str, world: int, micro: int
) -> None:
    sampler = samplers(corpus)[name]
    plan = Plan(sampler.windows_per_epoch, tiny_settings(micro_batch_size=micro))
    assert sampler.windows_per_epoch % 8, "the last batch must be smaller"
    for step in (0, plan.steps_per_epoch - 1, plan.steps_per_epoch):
        parts = [step_batch(plan, sampler, step, micro, rank, world) for rank in range(world)]
        epoch, first, last = plan.batch(step)
        expected = sampler.draw(epoch, np.arange(first, last), CONTEXT).tokens
        assert sorted(rows(parts)) == sorted(expected.tolist())
        assert len({len(part.micro_batches) for part in parts}) == 1
        assert all(tokens.shape == (micro, CONTEXT) for part in parts for tokens, _ in part.micro_batches)
        counted = sum(int((targets != IGNORED).sum()) for part in parts for _, targets in part.micro_batches)
        assert {part.targets for part in parts} == {counted}
        assert {part.tokens for part in parts} == {len(expected) * CONTEXT}


@pytest.mark.parametrize("name", ["window", "packed", "mixed"])
def test_fewer_windows_than_a_batch_make_one_step_with_empty_rows(tmp_path: Path, name: str) -> None:
    few = open_corpus(write_corpus(f"file://{tmp_path}/few", [documents(3, shortest=5, longest=14)]))
    sampler = samplers(few)[name]
    plan = Plan(sampler.windows_per_epoch, tiny_settings())
    assert plan.steps_per_epoch == 1
    parts = [step_batch(plan, sampler, 1, 2, rank, 4) for rank in range(4)]
    assert len(rows(parts)) == sampler.windows_per_epoch < 8
    assert {len(part.micro_batches) for part in parts} == {1}


def test_padding_is_counted_over_all_processes(corpus: Corpus) -> None:
    sampler = samplers(corpus)["masked"]
    plan = Plan(sampler.windows_per_epoch, tiny_settings(micro_batch_size=2))
    steps = [step_batch(plan, sampler, step, 2, 1, 2) for step in range(plan.steps_per_epoch)]
    assert sum(step.padding for step in steps) == np.maximum(0, CONTEXT - corpus.lengths).sum() > 0
