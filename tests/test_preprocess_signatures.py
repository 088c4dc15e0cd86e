"""Shingles are the sets they claim to be, and signatures estimate their similarity."""

import re
import time

import numpy as np
import pytest
from preprocess_helpers import prose, with_block_replaced

from components.preprocess.lsh import candidate_pairs, estimated_jaccard
from components.preprocess.signatures import (
    SIGNATURE_TYPE,
    from_arrow,
    jaccard,
    normalised,
    shingles,
    signatures,
    to_arrow,
)


def python_jaccard(one: str, other: str) -> float:
    sets = []
    for text in (one, other):
        words = re.findall(r"[^\W_]+", text.lower())
        sets.append({tuple(words[start : start + 5]) for start in range(len(words) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.3, 1.0])
def test_the_similarity_of_shingles_is_that_of_the_sets_of_word_5_grams(share: float) -> None:
    one = prose(1)
    other = with_block_replaced(one, share, seed=2)
    assert jaccard(shingles(one), shingles(other)) == pytest.approx(python_jaccard(one, other), abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The β-Catenin, and WNT pathway is on.", "the  Β catenin and\n\n(Wnt) pathway is on"),
        ("Straße des größten Übels der Welt", "STRAßE DES GRÖßTEN ÜBELS DER WELT"),
        ("one two", "One, two!"),
    ],
)
def test_case_punctuation_and_spacing_do_not_matter(one: str, other: str) -> None:
    assert np.array_equal(shingles(one), shingles(other))
    assert len(shingles(one)) > 0
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a b c d e", "a b c d f"),
        ("a b c d e", "a b c de e"),
        ("a b c d e", "e d c b a"),
        ("cafe is a kind of place", "cafe\u0301 is a kind of place"),
        ("see \U0001d465 in the first equation", "see \U0001d466 in the first equation"),
        ("one two", "one two three"),
    ],
)
def test_other_words_or_another_order_make_other_shingles(one: str, other: str) -> None:
    assert not np.array_equal(shingles(one), shingles(other))


def test_a_text_without_words_has_no_shingles_and_is_similar_to_nothing() -> None:
    empty = shingles(" \n ... --")
    assert len(empty) == 0
    assert jaccard(empty, empty) == 0.0
    assert jaccard(empty, shingles("some words are here now")) == 0.0


def test_signatures_have_one_row_of_112_per_text_whatever_stands_beside_it() -> None:
    texts = [prose(seed, words=50 + 30 * seed) for seed in range(6)]
    together = signatures(texts)
    assert together.shape == (6, 112)
    assert together.dtype == np.uint32
    assert np.array_equal(together, np.concatenate([signatures([text]) for text in texts]))
    assert signatures([]).shape == (0, 112)


def test_signatures_do_not_change_between_releases() -> None:
    """They are stored: another hash, seed or rensa must come with a new FORMAT_VERSION of the extraction."""
    row = signatures(["The quick brown fox jumps over the lazy dog, and then some."])[0]
    assert row[:4].tolist() == [3241074191, 3088352763, 3247772897, 3492840755]


def test_the_estimate_is_unbiased_and_as_close_as_112_permutations_allow() -> None:
    errors = []
    for seed in range(40):
        one = prose(seed)
        other = with_block_replaced(one, 0.08, seed=1000 + seed)
        rows = signatures([one, other])
        errors.append(estimated_jaccard(rows, np.array([[0, 1]]))[0] - jaccard(shingles(one), shingles(other)))
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.055


def test_signatures_survive_arrow_as_lists_and_as_bytes() -> None:
    import pyarrow as pa

    rows = signatures([prose(seed) for seed in range(3)])
    column = to_arrow(rows)
    assert column.type == SIGNATURE_TYPE
    assert np.array_equal(from_arrow(pa.chunked_array([column, column.slice(1)])), np.concatenate([rows, rows[1:]]))
    as_bytes = pa.array([row.astype("<u4").tobytes() for row in rows], pa.binary(448))
    assert np.array_equal(from_arrow(as_bytes), rows)


def test_bands_propose_similar_pairs_and_few_others() -> None:
    originals = [prose(seed) for seed in range(100)]
    copies = [with_block_replaced(text, 0.04, seed=500 + number) for number, text in enumerate(originals[:50])]
    pairs = candidate_pairs(signatures([*originals, *copies]), bands=14, rows_per_band=8)
    found = {tuple(pair) for pair in pairs.tolist()}
    planted = {(number, 100 + number) for number in range(50)}
    assert len(found & planted) >= 49
    assert len(found - planted) <= 2
    assert pairs.tolist() == sorted(pairs.tolist())


def test_a_large_family_in_one_band_stays_connected_without_comparing_all_pairs() -> None:
    rows = np.repeat(signatures([prose(1)]), 1000, axis=0)
    pairs = candidate_pairs(rows, bands=14, rows_per_band=8)
    assert len(pairs) <= 100 * 1000
    assert {(number, number + 1) for number in range(999)} <= {tuple(pair) for pair in pairs.tolist()}


def test_signatures_are_fast_enough_for_millions_of_articles() -> None:
    texts = [prose(seed, words=5000) for seed in range(40)]
    signatures(texts[:2])
    started = time.process_time()
    signatures(texts)
    # 1,400 real articles per CPU second were measured; a tenth leaves room for any machine.
    assert len(texts) / (time.process_time() - started) > 140
