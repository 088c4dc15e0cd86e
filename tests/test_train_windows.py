"""The window sampler against the authors' semantics, and its purity."""

from pathlib import Path

import numpy as np
import pytest
from train_helpers import CONTEXT, documents, tiny_settings, write_corpus

from components.common import storage
from components.train.batches import IGNORED, next_tokens, step_batch
from components.train.corpus import Corpus
from components.train.schedule import Plan
from components.train.windows import WindowBatch, WindowSampler, document_order, random_bits, window_starts

PADDING = 2
TEXTS = [*documents(50, seed=3), np.arange(CONTEXT) + 3, np.arange(CONTEXT + 1) + 3, np.array([7])]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Three shards of uneven sizes as one corpus."""
    shards = [TEXTS[:1], TEXTS[1:30], TEXTS[30:]]
    manifest = write_corpus(f"file://{tmp_path}", shards)
    return Corpus([storage.local_path(shard.uri) for shard in manifest.shards], "uint16")


def authors_window(text: np.ndarray, start: int) -> list[int]:
    """One paper, one window: as the authors' dataset does it, item by item."""
    if len(text) > CONTEXT:
        return [int(token) for token in text[start : start + CONTEXT]]
    return [int(token) for token in text] + [PADDING] * (CONTEXT - len(text))


def test_windows_are_those_of_the_authors_given_the_same_starts(corpus: Corpus) -> None:
    sampler = WindowSampler(corpus, CONTEXT, PADDING, seed=5)
    order = sampler.documents(epoch=2, first=0, last=len(TEXTS))
    batch = sampler.windows(2, order)
    starts = window_starts(5, 2, order, corpus.lengths[order], CONTEXT)
    expected = [authors_window(TEXTS[document], start) for document, start in zip(order, starts, strict=True)]
    assert batch.tokens.tolist() == expected
    assert batch.lengths.tolist() == [min(len(TEXTS[document]), CONTEXT) for document in order]


def test_starts_cover_every_place_but_the_very_last_window_evenly() -> None:
    length, draws = 26, 40_000
    numbers = np.arange(draws)
    starts = window_starts(0, 0, numbers, np.full(draws, length), CONTEXT)
    counts = np.bincount(starts)
    assert len(counts) == length - CONTEXT  # numpy's randint(0, length - context): 0 .. 9
    assert abs(counts / draws - 0.1).max() < 0.01


def test_a_document_of_exactly_the_context_gives_itself(corpus: Corpus) -> None:
    batch = WindowSampler(corpus, CONTEXT, PADDING, seed=1).windows(0, np.array([50]))
    assert batch.tokens[0].tolist() == TEXTS[50].tolist()


def test_every_epoch_visits_every_document_once_in_another_order() -> None:
    orders = [document_order(1, epoch, 1000) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(1000)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 3
    assert document_order(2, 0, 1000).tolist() != orders[0].tolist()


def test_windows_do_not_depend_on_what_was_asked_before(corpus: Corpus) -> None:
    fresh, used = (WindowSampler(corpus, CONTEXT, PADDING, seed=9) for _ in range(2))
    for epoch in (0, 1, 7):
        used.windows(epoch, used.documents(epoch, 0, 50))
    documents_wanted = fresh.documents(3, 10, 20)
    assert used.documents(3, 10, 20).tolist() == documents_wanted.tolist()
    one_by_one = [used.windows(3, documents_wanted[i : i + 1]).tokens[0] for i in range(10)]
    assert np.array_equal(fresh.windows(3, documents_wanted).tokens, one_by_one)


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (1, 2), (2, 4), (4, 1)])
def test_a_step_holds_the_same_windows_whatever_the_processes_and_micro_batches(
    corpus: Corpus, world: int, micro: int
) -> None:
    plan = Plan(len(corpus), tiny_settings(micro_batch_size=micro))
    sampler = WindowSampler(corpus, CONTEXT, PADDING, seed=0)
    for step in (0, plan.steps_per_epoch - 1):  # the last one has 5 of 8 windows left
        parts = [step_batch(plan, sampler, step, rank, world) for rank in range(world)]
        epoch, first, last = plan.batch(step)
        expected = sampler.windows(epoch, sampler.documents(epoch, first, last)).tokens
        rows = [
            tokens.tolist()
            for part in parts
            for batch in part.micro_batches
            for tokens, targets in zip(*batch, strict=True)
            if (targets != IGNORED).any()
        ]
        assert sorted(rows) == sorted(expected.tolist())
        assert len({len(part.micro_batches) for part in parts}) == 1
        counted = sum(int((targets != IGNORED).sum()) for part in parts for _, targets in part.micro_batches)
        assert {part.targets for part in parts} == {counted} == {len(expected) * (CONTEXT - 1)}


def test_padding_is_a_target_unless_it_is_masked() -> None:
    batch = WindowBatch(np.array([[5, 6, 7, 2, 2], [5, 6, 7, 8, 9]]), np.array([3, 5]))
    assert next_tokens(batch, mask_padding=False).tolist() == [[6, 7, 2, 2, IGNORED], [6, 7, 8, 9, IGNORED]]
    masked = [[6, 7, IGNORED, IGNORED, IGNORED], [6, 7, 8, 9, IGNORED]]
    assert next_tokens(batch, mask_padding=True).tolist() == masked


def test_masked_padding_is_counted_over_all_processes(corpus: Corpus) -> None:
    plan = Plan(len(corpus), tiny_settings(micro_batch_size=2, mask_padding=True))
    sampler = WindowSampler(corpus, CONTEXT, PADDING, seed=0)
    padding = 0
    for step in range(plan.steps_per_epoch):
        parts = [step_batch(plan, sampler, step, rank, 2) for rank in range(2)]
        counted = sum(int((targets != IGNORED).sum()) for part in parts for _, targets in part.micro_batches)
        assert parts[0].targets == parts[1].targets == counted
        padding += parts[0].padding
    assert padding == sum(max(0, CONTEXT - len(text)) for text in TEXTS) > 0


def test_random_bits_never_change() -> None:
    """A run that resumes under another version must draw the same windows."""
    assert [f"{bits:016x}" for bits in random_bits(1, 2, 3, np.arange(3, dtype=np.uint64))] == PINNED_BITS


def test_splitmix64_gives_its_published_sequence() -> None:
    """The first outputs for state 1234567 of the reference implementation (prng.di.unimi.it/splitmix64.c)."""
    from components.train.windows import _mix

    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * gamma) % 2**64 for i in range(3)], dtype=np.uint64)
    assert _mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


PINNED_BITS = ["12588d809dce88a7", "dd034ea7d44e8739", "5b70c9b40c7440b6"]
