"""Packed sampling against a plain one: every token a target exactly once per epoch."""

from pathlib import Path

import numpy as np
import pytest
from train_helpers import CONTEXT, documents, open_corpus, write_corpus

from components.train.data.corpus import Corpus
from components.train.data.packed import PackedSampler
from components.train.data.sampler import IGNORED

END, PADDING = 1, 2
SHORT = [np.array([9]), np.array([10, 11]), np.array([12])]  # many of them share a window
TEXTS = [
    *documents(40, seed=3, longest=90),
    *SHORT * 9,
    *documents(5, seed=4, shortest=CONTEXT * 5, longest=CONTEXT * 6),
]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return open_corpus(write_corpus(f"file://{tmp_path}", [TEXTS[:1], TEXTS[1:30], TEXTS[30:60], TEXTS[60:]]))


def sampler(corpus: Corpus, context: int = CONTEXT, block: int | None = None) -> PackedSampler:
    return PackedSampler(corpus, context, END, PADDING, seed=6, first_epoch_shards=block)


def plain_windows(order: list[int], context: int) -> tuple[list[list[int]], list[list[int]]]:
    """All documents of an epoch joined in a list, cut up with a loop."""
    stream = [token for document in order for token in [END, *TEXTS[document].tolist()]]
    following = [*stream[1:], END]
    spare = -len(stream) % context
    tokens, targets = stream + [PADDING] * spare, following + [IGNORED] * spare
    rows = range(0, len(tokens), context)
    return [tokens[row : row + context] for row in rows], [targets[row : row + context] for row in rows]


@pytest.mark.parametrize("context", [2, CONTEXT, 37, 5000])
@pytest.mark.parametrize(("epoch", "block"), [(0, None), (0, 2), (3, 2)])
def test_windows_are_those_of_one_long_list(corpus: Corpus, context: int, epoch: int, block: int | None) -> None:
    packed = sampler(corpus, context, block)
    tokens, targets = plain_windows(packed.order.of(epoch).tolist(), context)
    windows = packed.draw(epoch, np.arange(packed.windows_per_epoch), context)
    assert packed.windows_per_epoch == len(tokens)
    assert windows.tokens.tolist() == tokens
    assert windows.targets.tolist() == targets


def test_every_token_is_a_target_exactly_once_per_epoch(corpus: Corpus) -> None:
    packed = sampler(corpus)
    everything = [*np.concatenate(TEXTS).tolist(), *[END] * len(TEXTS)]
    epochs = [packed.draw(epoch, np.arange(packed.windows_per_epoch), CONTEXT) for epoch in range(2)]
    for windows in epochs:
        assert sorted(windows.targets[windows.targets != IGNORED].tolist()) == sorted(everything)
    assert not np.array_equal(epochs[0].tokens, epochs[1].tokens)


def test_padding_is_only_in_the_last_window_and_never_counts(corpus: Corpus) -> None:
    packed = sampler(corpus)
    last = packed.windows_per_epoch
    extents = [packed.extent(0, window, window + 1) for window in range(last)]
    windows = packed.draw(0, np.arange(last), CONTEXT)
    assert [extent.targets for extent in extents] == (windows.targets != IGNORED).sum(axis=1).tolist()
    assert [extent.padding for extent in extents[:-1]] == [0] * (last - 1)
    assert extents[-1].padding == CONTEXT - extents[-1].targets > 0
    assert packed.extent(0, 0, last).targets == len(np.concatenate(TEXTS)) + len(TEXTS)


def test_windows_do_not_depend_on_what_was_asked_before_or_with_them(corpus: Corpus) -> None:
    fresh, used = sampler(corpus), sampler(corpus)
    for epoch in (0, 1, 7):
        used.draw(epoch, np.array([3, 1]), CONTEXT)
    wanted = np.array([fresh.windows_per_epoch - 1, 4, 0, 4, 9])
    one_by_one = [used.draw(3, wanted[i : i + 1], CONTEXT) for i in range(len(wanted))]
    together = fresh.draw(3, wanted, CONTEXT)
    assert np.array_equal(together.tokens, [windows.tokens[0] for windows in one_by_one])
    assert np.array_equal(together.targets, [windows.targets[0] for windows in one_by_one])


def test_no_positions_give_no_windows(corpus: Corpus) -> None:
    assert sampler(corpus).draw(0, np.array([], dtype=np.int64), CONTEXT).tokens.shape == (0, CONTEXT)


def test_the_shards_of_a_stretch_are_all_that_drawing_it_reads(corpus: Corpus) -> None:
    packed = sampler(corpus, block=1)
    for window in range(packed.windows_per_epoch):
        read: list[np.ndarray] = []
        slices = corpus.slices
        corpus.slices = lambda *each, slices=slices, read=read: read.append(each[0]) or slices(*each)  # type: ignore
        packed.draw(0, np.array([window]), CONTEXT)
        corpus.slices = slices  # type: ignore[method-assign]
        assert set(corpus.shards_of(read[0])) <= set(packed.shards(0, window, window + 1).tolist())
