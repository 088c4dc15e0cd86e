"""Shingles are the sets they claim to be, and signatures estimate their similarity."""

import re
import time

import numpy as np
import pytest
from preprocess_helpers import prose, with_block_replaced

from components.preprocess.deduplication import signatures as module
from components.preprocess.deduplication.signatures import (
    SIGNATURE_TYPE,
    from_arrow,
    jaccard,
    ngram_hashes,
    shingles,
    signatures,
    sketches,
    to_arrow,
    word_hashes,
    words_digest,
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
    assert words_digest(one) == words_digest(other)


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
    assert words_digest(one) != words_digest(other)


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


def test_signatures_survive_arrow_as_lists_and_as_bytes() -> None:
    import pyarrow as pa

    rows = signatures([prose(seed) for seed in range(3)])
    column = to_arrow(rows)
    assert column.type == SIGNATURE_TYPE
    assert np.array_equal(from_arrow(pa.chunked_array([column, column.slice(1)])), np.concatenate([rows, rows[1:]]))
    as_bytes = pa.array([row.astype("<u4").tobytes() for row in rows], pa.binary(448))
    assert np.array_equal(from_arrow(as_bytes), rows)


def test_each_word_has_a_hash_of_its_own_in_the_order_of_the_text() -> None:
    text = "To be, or not to be: that is the question."
    words = re.findall(r"[^\W_]+", text.lower())
    hashes = word_hashes(text).tolist()
    assert len(hashes) == len(words)
    assert len(set(hashes)) == len(set(words))
    assert [hashes.index(each) for each in hashes] == [words.index(each) for each in words]


@pytest.mark.parametrize("width", [1, 2, 5, 13])
def test_runs_of_words_are_equal_where_their_words_are(width: int) -> None:
    words = (prose(1, 60) + " " + prose(2, 30) + " " + prose(1, 60)).split()
    runs = [tuple(words[start : start + width]) for start in range(len(words) - width + 1)]
    hashes = ngram_hashes(word_hashes(" ".join(words)), width).tolist()
    assert [hashes.index(each) for each in hashes] == [runs.index(each) for each in runs]


def test_fewer_words_than_a_run_make_none() -> None:
    for width in (0, 4):
        none = ngram_hashes(word_hashes("only three words"), width)
        assert (none.dtype, none.tolist()) == (np.uint64, [])


def test_long_texts_are_taken_in_pieces_that_cut_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [prose(seed, 200) for seed in range(5)]
    whole = [word_hashes(text) for text in texts]
    monkeypatch.setattr(module, "_POWERS", 50)
    module._powers.cache_clear()
    try:
        for text, hashes in zip(texts, whole, strict=True):
            assert np.array_equal(word_hashes(text), hashes)
        # A word that is longer than a piece is taken for several, but none of it is lost.
        assert len(word_hashes("before " + "x" * 120 + " after")) == 5
    finally:
        module._powers.cache_clear()


def test_a_very_long_text_takes_little_memory_beside_it() -> None:
    import tracemalloc

    text = prose(1, 1000) * 1500
    word_hashes(text[:1000])
    tracemalloc.start()
    hashes = word_hashes(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The characters as UTF-16, a number for each, and each word's hash; not two tables of powers of that length.
    assert peak < 12 * len(text) + 8 * len(hashes) * 2 + 100e6


def test_sketches_are_the_signatures_and_the_digests() -> None:
    texts = [prose(seed) for seed in range(3)] + ["", "a"]
    rows, digests = sketches(texts)
    assert np.array_equal(rows, signatures(texts))
    assert [row.tobytes() for row in digests] == [words_digest(text) for text in texts]
    assert sketches([])[1].shape == (0, 16)


def test_digests_do_not_change_between_releases() -> None:
    assert words_digest("The quick brown fox").hex() == "95ce21b9557f458f24f6ce021953249d"


def test_signatures_are_fast_enough_for_millions_of_articles() -> None:
    texts = [prose(seed, words=5000) for seed in range(40)]
    signatures(texts[:2])
    started = time.process_time()
    signatures(texts)
    # 1,400 real articles per CPU second were measured; a tenth leaves room for any machine.
    assert len(texts) / (time.process_time() - started) > 140
