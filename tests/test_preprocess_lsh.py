"""Bands propose the similar pairs and few others, from what little is held of a signature."""

from typing import Any

import numpy as np
import pytest
from preprocess_helpers import prose, with_block_replaced

from components.preprocess.deduplication import lsh
from components.preprocess.deduplication.lsh import CompactSignatures, candidate_pairs, estimated_jaccard
from components.preprocess.deduplication.signatures import jaccard, shingles, signatures

DRAW = np.random.default_rng(7)


def at_random(documents: int) -> np.ndarray:
    return DRAW.integers(0, 1 << 32, (documents, 112), dtype=np.uint32)


def with_copies(similarity: float, pairs: int) -> np.ndarray:
    """Signatures of pairs: row n and row pairs + n agree in each permutation with that probability."""
    rows, copies = at_random(pairs), at_random(pairs)
    agree = DRAW.random(rows.shape) < similarity
    return np.concatenate([rows, np.where(agree, rows, copies)])


def pairs_of(rows: np.ndarray, bands: int = 16, rows_per_band: int = 7, least: float = 0.65) -> np.ndarray:
    pairs, _ = candidate_pairs(CompactSignatures.of(rows, bands, rows_per_band), np.arange(len(rows)), least)
    return pairs


def test_the_estimate_is_unbiased_and_as_close_as_112_permutations_allow() -> None:
    errors = []
    for seed in range(40):
        one = prose(seed)
        other = with_block_replaced(one, 0.08, seed=1000 + seed)
        compact = CompactSignatures.of(signatures([one, other]), 16, 7)
        estimate = estimated_jaccard(compact, np.array([0]), np.array([1]))[0]
        errors.append(estimate - jaccard(shingles(one), shingles(other)))
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.055


@pytest.mark.parametrize("similarity", [0.0, 0.3, 0.8, 1.0])
def test_what_agrees_by_chance_is_taken_off(similarity: float) -> None:
    compact = CompactSignatures.of(with_copies(similarity, 3000), 16, 7)
    estimates = estimated_jaccard(compact, np.arange(3000), np.arange(3000, 6000))
    assert np.mean(estimates) == pytest.approx(similarity, abs=0.002)


@pytest.mark.parametrize(("bands", "rows_per_band"), [(16, 7), (14, 8)])
def test_pairs_are_found_as_often_as_the_formula_says(bands: int, rows_per_band: int) -> None:
    compact = CompactSignatures.of(with_copies(0.8, 4000), bands, rows_per_band)
    found, _ = candidate_pairs(compact, np.arange(8000), 0.0)
    expected = 1 - (1 - 0.8**rows_per_band) ** bands
    assert len(found) / 4000 == pytest.approx(expected, abs=0.015)
    assert (found[:, 1] - found[:, 0] == 4000).all()


def test_real_texts_are_found_and_few_others() -> None:
    originals = [prose(seed) for seed in range(100)]
    copies = [with_block_replaced(text, 0.04, seed=500 + number) for number, text in enumerate(originals[:50])]
    pairs = pairs_of(signatures([*originals, *copies]))
    found = {tuple(pair) for pair in pairs.tolist()}
    planted = {(number, 100 + number) for number in range(50)}
    assert len(found & planted) >= 49
    assert len(found - planted) <= 2
    assert pairs.tolist() == sorted(pairs.tolist())


def test_pairs_that_look_too_different_are_left_out() -> None:
    compact = CompactSignatures.of(with_copies(0.6, 2000), 16, 7)
    every, _ = candidate_pairs(compact, np.arange(4000), 0.0)
    some, estimates = candidate_pairs(compact, np.arange(4000), 0.65)
    assert 0 < len(some) < len(every)
    assert estimates.min() >= 0.65


def test_only_the_given_rows_are_compared_in_their_order() -> None:
    compact = CompactSignatures.of(with_copies(1.0, 10), 16, 7)
    rows = np.array([15, 3, 5, 9])  # of these 15 and 5 are a pair: the first and the third
    assert candidate_pairs(compact, rows, 0.65)[0].tolist() == [[0, 2]]


def test_filling_in_parts_is_the_same_as_at_once() -> None:
    rows = at_random(20)
    parts = CompactSignatures.empty(20, 16, 7)
    for start in (13, 0, 7):
        parts.put(start, rows[start : {0: 7, 7: 13, 13: 20}[start]])
    whole = CompactSignatures.of(rows, 16, 7)
    assert np.array_equal(parts.bands, whole.bands)
    assert np.array_equal(parts.low, whole.low)


@pytest.mark.parametrize("documents", [0, 1, 2])
def test_hardly_any_documents_are_fine(documents: int) -> None:
    assert pairs_of(at_random(documents)).shape == (0, 2)


def test_a_large_family_stays_connected_without_comparing_all_pairs() -> None:
    pairs = pairs_of(np.repeat(signatures([prose(1)]), 1000, axis=0))
    assert len(pairs) <= 100 * 1000
    assert {(number, number + 1) for number in range(999)} <= {tuple(pair) for pair in pairs.tolist()}


def test_a_corpus_of_nothing_but_boilerplate_has_a_limit_and_stays_connected(monkeypatch: Any) -> None:
    monkeypatch.setattr(lsh, "_MAX_PAIRS_PER_BAND", 5000)
    pairs = pairs_of(np.repeat(signatures([prose(1)]), 2000, axis=0))
    assert len(pairs) <= 5000 + 2000
    assert {(number, number + 1) for number in range(1999)} <= {tuple(pair) for pair in pairs.tolist()}
