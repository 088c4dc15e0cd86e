"""Candidates are compared by their true similarity, and linked to groups, whatever the order of the comparisons."""

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preprocess_helpers import clean_shard, document, prose, with_block_replaced

from components.preprocess.deduplication import verify
from components.preprocess.deduplication.document_index import read_index
from components.preprocess.deduplication.signatures import jaccard, shingles
from components.preprocess.deduplication.verify import Candidates, linked, read_candidates
from components.preprocess.settings import DeduplicateSettings

TEXTS = [prose(1), prose(1).upper(), with_block_replaced(prose(1), 0.1, seed=2), prose(3), "", "...", "two words"]


def candidates_of(texts: list[str], scratch: Any) -> Candidates:
    candidates = Candidates(np.arange(len(texts)), scratch)
    for number, text in reversed(list(enumerate(texts))):
        candidates.put(number, text)
    return candidates


def test_the_similarity_is_that_of_the_shingles_and_of_the_words() -> None:
    with tempfile.TemporaryFile() as scratch:
        candidates = candidates_of(TEXTS, scratch)
        for number, text in enumerate(TEXTS):
            assert np.array_equal(candidates.shingles(number), shingles(text))
        assert candidates.jaccard(0, 1) == 1.0
        assert candidates.jaccard(0, 2) == jaccard(shingles(TEXTS[0]), shingles(TEXTS[2]))
        assert candidates.jaccard(4, 5) == 1.0  # both without a word
        assert candidates.jaccard(4, 6) == 0.0
        assert candidates.same_words(np.array([0, 0, 4]), np.array([1, 2, 5])).tolist() == [True, False, True]


def test_a_pair_reaches_exactly_its_similarity() -> None:
    with tempfile.TemporaryFile() as scratch:
        candidates = candidates_of([prose(1), " ".join(prose(1).split()[:340]), "", "..."], scratch)
        truth = candidates.jaccard(0, 1)
        assert 0.8 < truth < 0.9
        assert candidates.reaches(0, 1, truth)
        assert not candidates.reaches(0, 1, truth + 1e-9)
        assert candidates.reaches(2, 3, 1.0)
        assert not candidates.reaches(0, 2, 0.5)


def test_pairs_of_too_different_sizes_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryFile() as scratch:
        candidates = candidates_of([prose(1), " ".join(prose(1).split()[:200])], scratch)
        monkeypatch.setattr(Candidates, "shingles", None)
        assert not candidates.reaches(0, 1, 0.8)


class Known(Candidates):
    """Candidates of which it is known which are similar; counts the comparisons."""

    def __init__(self, count: int, similar: set[tuple[int, int]]) -> None:
        super().__init__(np.arange(count), io.BytesIO())
        self._similar = similar
        self.compared: list[tuple[int, int]] = []

    def reaches(self, first: int, second: int, threshold: float) -> bool:
        self.compared.append((first, second))
        return (first, second) in self._similar


@pytest.mark.parametrize("pairs_per_round", [1, 7, 20_000])
@pytest.mark.parametrize("seed", range(5))
def test_groups_are_those_of_a_plain_search_whatever_the_order(
    pairs_per_round: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_PAIRS_PER_ROUND", pairs_per_round)
    draw = np.random.default_rng(seed)
    pairs = np.unique(np.sort(draw.integers(0, 60, (80, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    similar = {tuple(pair) for pair in pairs[draw.random(len(pairs)) < 0.5].tolist()}
    candidates = Known(60, similar)
    found = linked(pairs, draw.random(len(pairs)), candidates, 0.8)
    assert found.tolist() == plain_groups(60, similar)
    assert len(candidates.compared) == len(set(candidates.compared)) <= len(pairs)


def plain_groups(count: int, links: set[tuple[int, int]]) -> list[int]:
    """Spread the smallest member of each group along its links until nothing changes."""
    labels = list(range(count))
    changed = True
    while changed:
        changed = False
        for one, other in links:
            low = min(labels[one], labels[other])
            changed |= (labels[one], labels[other]) != (low, low)
            labels[one] = labels[other] = low
    return labels


def test_a_large_family_needs_few_comparisons() -> None:
    pairs = np.array([(one, other) for one in range(2000) for other in range(one + 1, min(one + 101, 2000))])
    candidates = Known(2000, {(one, other) for one, other in pairs.tolist()})
    assert linked(pairs, np.ones(len(pairs)), candidates, 0.8).tolist() == [0] * 2000
    assert len(candidates.compared) == 1999


def test_candidates_are_read_by_number_in_whatever_order_they_are_given(tmp_path: Path) -> None:
    texts = [prose(number, 20) for number in range(30)]
    rows = [document(f"PMC{number}", text) for number, text in enumerate(texts)]
    shards = [clean_shard(tmp_path, "shard-00000", rows[:17]), clean_shard(tmp_path, "shard-00001", rows[17:])]
    index = read_index(shards, DeduplicateSettings())
    wanted = np.array([29, 3, 16, 17, 0])
    with tempfile.TemporaryFile() as scratch:
        candidates = read_candidates(index, wanted, scratch)
        for place, number in enumerate(wanted.tolist()):
            assert np.array_equal(candidates.shingles(place), shingles(texts[number]))


def test_no_candidates_are_fine(tmp_path: Path) -> None:
    index = read_index([clean_shard(tmp_path, "shard-00000", [document("PMC1", "one")])], DeduplicateSettings())
    nothing = np.empty(0, dtype=np.int64)
    with tempfile.TemporaryFile() as scratch:
        candidates = read_candidates(index, nothing, scratch)
        assert linked(nothing.reshape(0, 2), nothing, candidates, 0.8).tolist() == []
