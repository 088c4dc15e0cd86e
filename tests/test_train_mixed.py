"""Mixed sampling: shares in every stretch, each source through epochs of its own."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from train_helpers import CONTEXT, documents, open_corpus, write_corpus

from components.train.data.corpus import Corpus
from components.train.data.mixed import MixedSampler
from components.train.data.sampler import IGNORED
from components.train.data.windows import WindowSampler

PADDING = 2
SIZES = [60, 25, 300]


@pytest.fixture
def corpora(tmp_path: Path) -> list[Corpus]:
    """Sources whose documents can be told apart: one token each, of a range of its own."""
    texts = [[np.full(20, 1000 * (source + 1) + number) for number in range(size)] for source, size in enumerate(SIZES)]
    return [
        open_corpus(write_corpus(f"file://{tmp_path}/{source}", [each[:10], each[10:]]))
        for source, each in enumerate(texts)
    ]


def sampler(corpora: list[Corpus], weights: list[float], seed: int = 4) -> MixedSampler:
    return MixedSampler(corpora, weights, CONTEXT, PADDING, mask_padding=False, seed=seed)


def seen(mixed: MixedSampler, epoch: int) -> np.ndarray:
    """What tells each window's document."""
    return mixed.draw(epoch, np.arange(mixed.windows_per_epoch), CONTEXT).tokens[:, 0]


def test_an_epoch_is_one_pass_over_the_first_source_at_its_share(corpora: list[Corpus]) -> None:
    mixed = sampler(corpora, [0.5, 0.2, 0.3])
    assert mixed.windows_per_epoch == 60 + 24 + 36
    for epoch in range(3):
        sources = Counter((seen(mixed, epoch) // 1000).tolist())
        assert sources == {1: 60, 2: 24, 3: 36}
        own = seen(mixed, epoch)
        assert sorted(own[own < 2000]) == list(range(1000, 1060))


def test_every_source_gives_each_document_once_before_any_twice(corpora: list[Corpus]) -> None:
    mixed = sampler(corpora, [0.5, 0.2, 0.3])
    drawn = np.concatenate([seen(mixed, epoch) for epoch in range(6)])
    for source, size in enumerate(SIZES):
        of_source = drawn[drawn // 1000 == source + 1]
        for first in range(0, len(of_source), size):
            part = of_source[first : first + size]
            assert len(set(part.tolist())) == len(part)
    assert len(set(drawn[drawn // 1000 == 3].tolist())) == 6 * 36  # it is far from its first epoch's end


@pytest.mark.parametrize("weights", [[0.5, 0.2, 0.3], [1, 1, 1], [9, 1, 0.5], [0.1, 0.7, 0.2]])
def test_shares_hold_in_every_stretch(corpora: list[Corpus], weights: list[float]) -> None:
    mixed = sampler(corpora, weights)
    sources = seen(mixed, 0) // 1000 - 1
    assert len(sources) == sum(mixed.shares)
    for source, share in enumerate(np.array(mixed.shares) / sum(mixed.shares)):
        before = np.concatenate([[0], np.cumsum(sources == source)])
        for length in (8, 16, 32):
            counts = before[length:] - before[:-length]
            assert abs(counts - share * length).max() <= 2, (source, length)


def test_the_first_source_is_drawn_as_it_would_be_alone(corpora: list[Corpus]) -> None:
    mixed = sampler(corpora, [0.5, 0.2, 0.3])
    alone = WindowSampler(corpora[0], CONTEXT, PADDING, mask_padding=False, seed=4)
    own = seen(mixed, 1)
    assert own[own < 2000].tolist() == alone.draw(1, np.arange(60), CONTEXT).tokens[:, 0].tolist()


def test_sources_of_one_size_come_in_different_orders(tmp_path: Path) -> None:
    corpus = open_corpus(write_corpus(f"file://{tmp_path}", [documents(40)]))
    mixed = sampler([corpus, corpus], [1, 1])
    orders = [source.documents(0, np.arange(40)).tolist() for source in mixed.sources]
    assert orders[0] != orders[1]


def test_windows_are_a_pure_function_of_seed_epoch_and_position(corpora: list[Corpus]) -> None:
    fresh, used = sampler(corpora, [0.5, 0.2, 0.3]), sampler(corpora, [0.5, 0.2, 0.3])
    used.draw(5, np.array([3, 77]), CONTEXT)
    wanted = np.array([119, 0, 7, 64, 64])
    together = fresh.draw(2, wanted, CONTEXT)
    one_by_one = [used.draw(2, wanted[i : i + 1], CONTEXT) for i in range(len(wanted))]
    assert np.array_equal(together.tokens, [windows.tokens[0] for windows in one_by_one])
    assert seen(sampler(corpora, [0.5, 0.2, 0.3], seed=5), 0).tolist() != seen(fresh, 0).tolist()


def test_a_source_smaller_than_its_part_of_a_batch_comes_several_times(corpora: list[Corpus]) -> None:
    mixed = sampler(corpora, [0.1, 0.7, 0.2])
    drawn = seen(mixed, 0)
    small = Counter(drawn[drawn // 1000 == 2].tolist())
    assert len(small) == 25
    assert max(small.values()) - min(small.values()) <= 1
    assert sum(small.values()) == 420


def test_short_documents_are_padded_and_counted(tmp_path: Path) -> None:
    texts = [documents(30, seed=seed) for seed in range(2)]
    corpora = [open_corpus(write_corpus(f"file://{tmp_path}/{i}", [each])) for i, each in enumerate(texts)]
    mixed = MixedSampler(corpora, [2, 1], CONTEXT, PADDING, mask_padding=True, seed=0)
    extent = mixed.extent(0, 5, 44)
    windows = mixed.draw(0, np.arange(5, 44), extent.width)
    assert extent.targets == (windows.targets != IGNORED).sum()
    assert extent.padding == 39 * CONTEXT - extent.targets - 39 > 0
