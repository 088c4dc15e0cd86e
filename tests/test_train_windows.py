"""The window sampler against the authors' semantics, and its purity."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from train_helpers import CONTEXT, documents, open_corpus, write_corpus

from components.train.data.corpus import Corpus
from components.train.data.order import document_order
from components.train.data.sampler import IGNORED
from components.train.data.windows import WindowSampler, next_tokens, window_starts

PADDING = 2
TEXTS = [*documents(50, seed=3), np.arange(CONTEXT) + 3, np.arange(CONTEXT + 1) + 3, np.array([7])]
ALL = np.arange(len(TEXTS))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Three shards of uneven sizes as one corpus."""
    return open_corpus(write_corpus(f"file://{tmp_path}", [TEXTS[:1], TEXTS[1:30], TEXTS[30:]]))


def sampler(corpus: Corpus, seed: int = 0, mask_padding: bool = False) -> WindowSampler:
    return WindowSampler(corpus, CONTEXT, PADDING, mask_padding, seed)


class AuthorsDataset:
    """The authors' dataset, paper by paper; the offsets that `numpy.random.randint` would draw are given."""

    def __init__(self, papers: list[np.ndarray], offsets: Iterator[int]) -> None:
        self.papers = papers
        self.offsets = offsets

    def randint(self, low: int, high: int) -> int:
        offset = next(self.offsets)
        assert low <= offset < high
        return offset

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        tokens = [int(token) for token in self.papers[index]]
        if len(tokens) > CONTEXT:
            start = self.randint(0, len(tokens) - CONTEXT)
            tokens = tokens[start : start + CONTEXT]
        tokens = tokens + [PADDING] * (CONTEXT - len(tokens))
        return {"input_ids": tokens, "labels": list(tokens)}


def shifted(labels: list[int]) -> list[int]:
    """What a causal model does with labels: each place predicts the next one's, the last one nothing."""
    return [*labels[1:], IGNORED]


def test_windows_are_those_of_the_authors_given_the_same_offsets(corpus: Corpus) -> None:
    for epoch in (0, 2):
        ours = sampler(corpus, seed=5)
        order = ours.documents(epoch, ALL)
        long = order[corpus.lengths[order] > CONTEXT]
        offsets = iter(window_starts(5, epoch, long, corpus.lengths[long], CONTEXT).tolist())
        authors = AuthorsDataset(TEXTS, offsets)
        expected = [authors[document] for document in order]
        windows = ours.draw(epoch, ALL, CONTEXT)
        assert windows.tokens.tolist() == [item["input_ids"] for item in expected]
        assert windows.targets.tolist() == [shifted(item["labels"]) for item in expected]
        assert next(offsets, None) is None


def test_starts_cover_every_place_but_the_very_last_window_evenly() -> None:
    length, draws = 26, 40_000
    numbers = np.arange(draws)
    starts = window_starts(0, 0, numbers, np.full(draws, length), CONTEXT)
    counts = np.bincount(starts)
    assert len(counts) == length - CONTEXT  # numpy's randint(0, length - context): 0 .. 9
    assert abs(counts / draws - 0.1).max() < 0.01


def test_a_document_of_exactly_the_context_gives_itself(corpus: Corpus) -> None:
    ours = sampler(corpus, seed=1)
    position = np.flatnonzero(ours.documents(0, ALL) == 50)
    assert ours.draw(0, position, CONTEXT).tokens[0].tolist() == TEXTS[50].tolist()


def test_every_epoch_visits_every_document_once_in_another_order() -> None:
    orders = [document_order(1, epoch, 1000) for epoch in range(3)]
    assert all(sorted(order.tolist()) == list(range(1000)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 3
    assert document_order(2, 0, 1000).tolist() != orders[0].tolist()


def test_windows_do_not_depend_on_what_was_asked_before(corpus: Corpus) -> None:
    fresh, used = sampler(corpus, seed=9), sampler(corpus, seed=9)
    for epoch in (0, 1, 7):
        used.draw(epoch, ALL, CONTEXT)
    wanted = np.arange(10, 20)
    one_by_one = [used.draw(3, wanted[i : i + 1], CONTEXT).tokens[0] for i in range(10)]
    assert np.array_equal(fresh.draw(3, wanted, CONTEXT).tokens, one_by_one)


def test_padding_is_a_target_unless_it_is_masked() -> None:
    tokens = np.array([[5, 6, 7, 2, 2], [5, 6, 7, 8, 9]])
    assert next_tokens(tokens, None).tolist() == [[6, 7, 2, 2, IGNORED], [6, 7, 8, 9, IGNORED]]
    masked = [[6, 7, IGNORED, IGNORED, IGNORED], [6, 7, 8, 9, IGNORED]]
    assert next_tokens(tokens, np.array([3, 5])).tolist() == masked


@pytest.mark.parametrize("mask_padding", [True, False])
def test_the_extent_says_what_the_windows_hold(corpus: Corpus, mask_padding: bool) -> None:
    ours = sampler(corpus, mask_padding=mask_padding)
    extent = ours.extent(1, 3, 41)
    windows = ours.draw(1, np.arange(3, 41), extent.width)
    inside = np.minimum(corpus.lengths[ours.documents(1, np.arange(3, 41))], CONTEXT)
    assert windows.tokens.shape == windows.targets.shape == (38, extent.width)
    assert extent.targets == (windows.targets != IGNORED).sum()
    assert extent.padding == (CONTEXT - inside).sum() > 0


def test_no_positions_give_no_windows(corpus: Corpus) -> None:
    windows = sampler(corpus, mask_padding=True).draw(0, np.array([], dtype=np.int64), CONTEXT)
    assert windows.tokens.shape == windows.targets.shape == (0, CONTEXT)
