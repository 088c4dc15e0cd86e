"""The samplers of fine-tuning against plain loops over the examples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finetune_helpers import tiny_finetune
from train_helpers import alone

from components.common import storage
from components.common.errors import InputError
from components.common.shards import write_shard
from components.train.data.batches import step_batch
from components.train.data.examples import Examples, PackedExamples, PaddedExamples, open_examples
from components.train.data.order import document_order
from components.train.data.sampler import IGNORED
from components.train.data.schedule import Plan
from components.train.launching.job import TokenShard, TokenSource, TrainJob

PADDING, CONTEXT, SEED = 0, 70, 7
LOSSES = ["all", "answer"]


def pieces(count: int = 40, longest: int = CONTEXT) -> list[tuple[list[int], list[int]]]:
    """Random prompts and answers; no token is the padding's."""
    random = np.random.default_rng(1)
    lengths = [(int(random.integers(1, longest - 8)), int(random.integers(1, 9))) for _ in range(count)]
    return [tuple(random.integers(3, 60, length).tolist() for length in pair) for pair in lengths]  # type: ignore[misc]


EXAMPLES = [*pieces(), ([5] * (CONTEXT - 1), [6])]  # the last one fills a window


def store(folder: Path) -> TokenShard:
    flat = [piece for example in EXAMPLES for piece in example]
    tokens = np.concatenate(flat).astype("<u2")
    offsets = np.cumsum([0, *map(len, flat)]).astype("<i8")
    files = {".bin": tokens.tobytes(), ".idx": offsets.tobytes()}
    shard = write_shard(storage.to_uri(folder), "train", files, len(EXAMPLES))
    return TokenShard(name="train", uri=shard.uri, documents=len(flat), tokens=len(tokens), sha256=shard.sha256)


def make_job(folder: Path, **changes: Any) -> TrainJob:
    settings = tiny_finetune(context_length=CONTEXT, seed=SEED, **changes)
    return TrainJob(
        fingerprint="f0",
        base_model_uri="",
        sources=[TokenSource(name="examples", shards=[store(folder)])],
        token_dtype="uint16",
        vocabulary_size=60,
        end_token_id=2,
        padding_token_id=PADDING,
        output_uri="",
        scratch_folder=folder / "scratch",
        settings=settings,
    )


@pytest.fixture
def examples(tmp_path: Path) -> Examples:
    return Examples.map(storage.local_path(store(tmp_path).uri), "uint16")


def in_order(epoch: int) -> list[tuple[list[int], list[int]]]:
    return [EXAMPLES[number] for number in document_order(SEED, epoch, len(EXAMPLES))]


def pairs(example: tuple[list[int], list[int]], loss_on: str) -> list[tuple[int, bool]]:
    """Each token of an example, and whether it counts where it is a target."""
    prompt, answer = example
    return [(token, loss_on == "all") for token in prompt] + [(token, True) for token in answer]


def laid_out(stream: list[tuple[int, bool]], start: int, width: int) -> tuple[list[int], list[int]]:
    """One window of a stream, place by place."""
    tokens, targets = [], []
    for place in range(start, start + width):
        tokens.append(stream[place][0] if place < len(stream) else PADDING)
        counts = place + 1 < len(stream) and stream[place + 1][1]
        targets.append(stream[place + 1][0] if counts else IGNORED)
    return tokens, targets


@pytest.mark.parametrize("loss_on", LOSSES)
def test_packed_windows_are_cut_from_the_stream_of_the_epochs_order(examples: Examples, loss_on: Any) -> None:
    sampler = PackedExamples(examples, CONTEXT, PADDING, loss_on, SEED)
    for epoch in (0, 1):
        stream = [pair for example in in_order(epoch) for pair in pairs(example, loss_on)]
        count = sampler.windows_per_epoch
        assert (count - 1) * CONTEXT < len(stream) - 1 <= count * CONTEXT
        expected = [laid_out(stream, window * CONTEXT, CONTEXT) for window in range(count)]
        drawn = sampler.draw(epoch, np.arange(count), CONTEXT)
        assert drawn.tokens.tolist() == [tokens for tokens, _ in expected]
        assert drawn.targets.tolist() == [targets for _, targets in expected]
        counted = sum(counts for _, counts in stream[1:])
        assert (drawn.targets != IGNORED).sum() == counted


@pytest.mark.parametrize("loss_on", LOSSES)
def test_padded_windows_hold_one_example_each(examples: Examples, loss_on: Any) -> None:
    sampler = PaddedExamples(examples, CONTEXT, PADDING, loss_on, SEED)
    assert sampler.windows_per_epoch == len(EXAMPLES)
    expected = [laid_out(pairs(example, loss_on), 0, CONTEXT) for example in in_order(3)]
    drawn = sampler.draw(3, np.arange(len(EXAMPLES)), CONTEXT)
    assert drawn.tokens.tolist() == [tokens for tokens, _ in expected]
    assert drawn.targets.tolist() == [targets for _, targets in expected]


@pytest.mark.parametrize("kind", [PackedExamples, PaddedExamples])
@pytest.mark.parametrize("loss_on", LOSSES)
def test_extents_are_what_the_windows_hold(examples: Examples, kind: Any, loss_on: Any) -> None:
    sampler = kind(examples, CONTEXT, PADDING, loss_on, SEED)
    count = sampler.windows_per_epoch
    for first, last in [(0, 1), (0, 8), (3, 9), (count - 1, count), (0, count)]:
        extent = sampler.extent(1, first, last)
        drawn = sampler.draw(1, np.arange(first, last), extent.width)
        assert drawn.tokens.shape == drawn.targets.shape == (last - first, extent.width)
        assert extent.targets == (drawn.targets != IGNORED).sum()
        assert extent.padding == (drawn.tokens == PADDING).sum()
        assert not extent.waits


def test_packed_extents_are_right_however_the_stream_ends(examples: Examples) -> None:
    for context in range(2, 40):
        for loss_on in ("all", "answer"):
            sampler = PackedExamples(examples, context, PADDING, loss_on, SEED)  # type: ignore[arg-type]
            count = sampler.windows_per_epoch
            extents = [sampler.extent(0, window, window + 1) for window in range(count)]
            drawn = sampler.draw(0, np.arange(count), context)
            assert [each.targets for each in extents] == (drawn.targets != IGNORED).sum(axis=1).tolist()
            assert [each.padding for each in extents] == (drawn.tokens == PADDING).sum(axis=1).tolist()


def test_padded_windows_are_as_wide_as_the_longest_of_the_step_in_steps_of_64(examples: Examples) -> None:
    sampler = PaddedExamples(examples, 1000, PADDING, "all", SEED)
    widths = {sampler.extent(0, first, first + 4).width for first in range(0, len(EXAMPLES), 4)}
    longest = [max(len(p) + len(a) for p, a in in_order(0)[first : first + 4]) for first in range(0, len(EXAMPLES), 4)]
    assert widths == {-(-length // 64) * 64 for length in longest} == {64, 128}
    capped = PaddedExamples(examples, CONTEXT, PADDING, "all", SEED)
    assert capped.extent(0, 0, len(EXAMPLES)).width == CONTEXT


@pytest.mark.parametrize("kind", [PackedExamples, PaddedExamples])
def test_windows_depend_on_nothing_but_seed_epoch_and_position(examples: Examples, kind: Any) -> None:
    one, other = (kind(examples, CONTEXT, PADDING, "all", SEED) for _ in range(2))
    everything = one.draw(2, np.arange(10), CONTEXT)
    other.draw(0, np.arange(3), CONTEXT)
    some = other.draw(2, np.array([7, 2]), CONTEXT)
    assert some.tokens.tolist() == everything.tokens[[7, 2]].tolist()
    assert some.targets.tolist() == everything.targets[[7, 2]].tolist()
    assert one.draw(1, np.arange(10), CONTEXT).tokens.tolist() != everything.tokens.tolist()
    another_seed = kind(examples, CONTEXT, PADDING, "all", SEED + 1).draw(2, np.arange(10), CONTEXT)
    assert another_seed.tokens.tolist() != everything.tokens.tolist()


@pytest.mark.parametrize("kind", [PackedExamples, PaddedExamples])
def test_processes_and_micro_batches_share_out_the_same_windows(examples: Examples, kind: Any) -> None:
    sampler = kind(examples, CONTEXT, PADDING, "answer", SEED)
    plan = Plan(sampler.windows_per_epoch, tiny_finetune(context_length=CONTEXT))
    for step in (0, plan.steps_per_epoch - 1):  # the last is smaller
        seen = []
        for size, world in [(8, 1), (2, 1), (4, 2), (1, 4)]:
            parts = [step_batch(plan, sampler, step, size, rank, world) for rank in range(world)]
            rows = [
                (tuple(token), tuple(target))
                for part in parts
                for tokens, targets in part.micro_batches
                for token, target in zip(tokens.tolist(), targets.tolist(), strict=True)
                if any(each != IGNORED for each in target)
            ]
            assert len({(part.targets, part.tokens, part.padding) for part in parts}) == 1
            assert parts[0].targets == sum(target != IGNORED for _, targets in rows for target in targets)
            seen.append(sorted(rows))
        assert all(rows == seen[0] for rows in seen)


@pytest.mark.parametrize(("packed", "kind"), [(True, PackedExamples), (False, PaddedExamples)])
def test_a_job_opens_the_sampler_of_its_settings(tmp_path: Path, packed: bool, kind: type) -> None:
    job = make_job(tmp_path, packed=packed, loss_on="answer")
    with alone() as layout:
        sampler = open_examples(job, layout)
    assert type(sampler) is kind
    assert sampler.padding_id == PADDING
    assert sampler.extent(0, 0, 4).targets < sampler.extent(0, 0, 4).width


def test_a_shard_that_is_not_the_jobs_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    file = storage.local_path(job.shards[0].uri)
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    with alone() as layout, pytest.raises(InputError, match="Token shard train is corrupt"):
        open_examples(job, layout)
