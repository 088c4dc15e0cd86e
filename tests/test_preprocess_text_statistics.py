"""The statistics of a text are those that plain Python finds, word by word."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.preprocess.filtering.text_statistics import ENGLISH_STOP_WORDS, TextStatistics

WORDS = st.sampled_from(["the", "of", "and", "cell", "Cell", "x", "0.05", "(12%)", "naïve", "…", "#", "A"])
GAPS = st.sampled_from([" ", "\n", "\n\n", "  "])
PHRASES = st.lists(st.tuples(WORDS, GAPS).map("".join), max_size=80).map("".join)
TEXTS = st.one_of(st.text(max_size=200), PHRASES)


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_words_are_counted_and_measured_as_split_makes_them(text: str) -> None:
    words, found = text.split(), TextStatistics(text)
    assert found.words == len(words)
    if words and text.isascii():
        assert found.mean_word_length == pytest.approx(sum(map(len, words)) / len(words))
        assert found.alphabetic_bound <= found.alphabetic
        assert found.alphabetic == pytest.approx(sum(any(map(str.isalpha, word)) for word in words) / len(words))
        visible = "".join(words)
        assert found.digits == pytest.approx(sum(map(str.isdigit, visible)) / len(visible))
        letters = [character for character in visible if character.isalpha()]
        assert found.upper_case == pytest.approx(sum(map(str.isupper, letters)) / max(len(letters), 1))


@given(TEXTS, st.integers(2, 6))
@settings(max_examples=200, deadline=None)
def test_repeated_runs_are_found_as_a_counter_finds_them(text: str, width: int) -> None:
    found = TextStatistics(text)
    words = (
        [word.lower() for word in "".join(c if c.isalnum() else " " for c in text).split()] if text.isascii() else []
    )
    if not words:
        return
    ngrams = [tuple(words[place : place + width]) for place in range(len(words) - width + 1)]
    total = sum(map(len, words))
    counts = Counter(ngrams)
    repeated: set[int] = set()
    for place, ngram in enumerate(ngrams):
        if ngram in ngrams[:place]:
            repeated.update(range(place, place + width))
    assert found.duplicate_ngrams(width) == pytest.approx(sum(len(words[place]) for place in repeated) / total)
    most = max(counts.values(), default=0)
    shares = {min(count * sum(map(len, ngram)) / total, 1) for ngram, count in counts.items() if count == most > 1} or {
        0.0
    }
    bound = found.top_ngram_bound(width)
    assert found.top_ngram(width) == pytest.approx(max(shares))
    assert found.top_ngram(width) <= bound + 1e-9
    assert found.top_ngram(width + 1) <= found.top_ngram_bound(width + 1) + 1e-9


def test_every_character_is_either_in_a_word_or_between_words() -> None:
    """A letter in a circle is upper case to Python but no letter: it is no word, to whoever counts."""
    for start in range(0, 0x11000, 0x100):
        text = " ".join(f"a{chr(code)}b {chr(code)} c" for code in range(start, start + 0x100))
        found = TextStatistics(f"{text} {text}")
        assert 0 <= found.duplicate_ngrams(3) <= 1, hex(start)
    circled = TextStatistics("Ⓐ one two three four five six seven " * 30)
    assert circled.duplicate_ngrams(5) == pytest.approx(29 / 30, abs=0.02)
    assert circled.upper_case == 0


def test_words_with_a_letter_are_at_least_those_that_begin_with_one() -> None:
    found = TextStatistics("Of 12 (two) 3b 4 five")
    assert found.alphabetic_bound == pytest.approx(2 / 6)
    assert found.alphabetic == pytest.approx(4 / 6)


def test_lines_that_come_again_are_counted_by_number_and_by_characters() -> None:
    found = TextStatistics("one line\n\nanother line\n\none line\n\none line")
    assert found.duplicate_lines == pytest.approx(2 / 4)
    assert found.duplicate_line_characters == pytest.approx(16 / 42)


def test_markup_and_stop_words_are_counted_per_word() -> None:
    assert TextStatistics(r"a \frac{1}{2} b … #").markup == pytest.approx(7 / 5)
    assert TextStatistics("The cells, and THE rest of it.").english_stop_words == pytest.approx(4 / 7)
    assert TextStatistics(" ".join(ENGLISH_STOP_WORDS)).english_stop_words == 1


@pytest.mark.parametrize("text", ["", " ", "\n\n", "...", "\ud800", "word", "𝔘𝔫𝔦", "中文文本"])
def test_a_text_of_hardly_anything_has_statistics_too(text: str) -> None:
    found = TextStatistics(text)
    shares = [
        found.alphabetic, found.digits, found.upper_case, found.duplicate_lines, found.duplicate_line_characters,
        found.english_stop_words, found.top_ngram(2), found.top_ngram_bound(3), found.duplicate_ngrams(5),
    ]  # fmt: skip
    assert all(0 <= share <= 1 for share in shares)
    assert found.duplicate_lines == 0
    assert found.words == len(text.split())
