"""Measures of a text: its words, its characters, its repetitions; whole arrays at a time.

The rules are those of Gopher (Rae et al. 2021, "Scaling Language Models", table A1 and section A1.1); `filters` holds
them against their limits.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cached_property, lru_cache

import numpy as np

from components.preprocess.deduplication.signatures import WORD_CATEGORIES, word_hashes

ENGLISH_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Gopher's eight: a text without them is no English prose."""

# Classes of characters; the order matters: from _DIGIT on they make words, from _UPPER on letters.
_SPACE, _SYMBOL, _MARKUP, _DIGIT, _UPPER, _LETTER = range(6)
# Gopher's hash and ellipsis, and what TeX and Markdown leave; "<" compares numbers.
_MARKUP_CHARACTERS = frozenset("#…\\{}^_`")
_PLACE = np.uint64((1 << 24) - 1)  # the lower bits of a sorted n-gram; what follows 16 million words is not looked at
_WORD_BASE = np.uint64(0xD1342543DE82EF95)


class TextStatistics:
    """Measures of one text, each computed when it is first asked for.

    Words are what stands between white space, except in n-grams, where they are runs of letters and digits.
    """

    def __init__(self, text: str) -> None:
        """Measure this text."""
        self.text = text
        self._last_ngrams: tuple[int, np.ndarray] | None = None
        self._top_counts: dict[int, int] = {}

    @cached_property
    def words(self) -> int:
        """Number of words, as `len(text.split())` counts them."""
        return _starts(self._classes != _SPACE)

    @cached_property
    def mean_word_length(self) -> float:
        """Characters per word, with the punctuation that touches it."""
        return self._visible / max(self.words, 1)

    @cached_property
    def alphabetic(self) -> float:
        """Share of the words that hold a letter."""
        letters = self._classes >= _UPPER
        # Once all but letters and space is left out, a word with a letter is a run of letters.
        return _starts(letters[letters | (self._classes == _SPACE)]) / max(self.words, 1)

    @cached_property
    def digits(self) -> float:
        """Share of the visible characters that are digits."""
        return self._counts[_DIGIT] / max(self._visible, 1)

    @cached_property
    def upper_case(self) -> float:
        """Share of the letters that are upper case."""
        return self._counts[_UPPER] / max(self._counts[_UPPER] + self._counts[_LETTER], 1)

    @cached_property
    def markup(self) -> float:
        """Ellipses, and characters that TeX, HTML and Markdown live on, per word."""
        return self._counts[_MARKUP] / max(self.words, 1)

    @cached_property
    def lines(self) -> list[str]:
        """The lines that are not empty; one is a title, a paragraph, or an item of a list."""
        return [line for line in self.text.split("\n") if line]

    @cached_property
    def duplicate_lines(self) -> float:
        """Share of the lines that occurred before."""
        return (len(self.lines) - len(self._line_counts)) / max(len(self.lines), 1)

    @cached_property
    def duplicate_line_characters(self) -> float:
        """Share of the characters that stand in lines that occurred before."""
        repeated = sum(len(line) * (count - 1) for line, count in self._line_counts.items() if count > 1)
        return repeated / max(len(self.text), 1)

    def top_ngram(self, width: int) -> float:
        """Return the share of the words' characters that the most frequent run of `width` words takes up.

        Of several that are equally frequent the longest counts.
        """
        ngrams = self._sorted_ngrams(width)
        starts = np.flatnonzero(~_same_as_before(ngrams))
        counts = np.diff(starts, append=len(ngrams))
        most = self._top_counts[width] = int(counts.max(initial=0))
        if most < 2:
            return 0.0
        places = (ngrams[starts[counts == most]] & _PLACE).astype(np.intp)
        longest = int((self._word_ends[places + width] - self._word_ends[places]).max())
        return min(most * longest / self._word_characters, 1.0)  # "a a a" holds "a a" twice

    def top_ngram_bound(self, width: int) -> float:
        """Return what `top_ngram` cannot exceed, by what was found for shorter runs, which are as frequent at least."""
        counts = [count for shorter, count in self._top_counts.items() if shorter <= width]
        if not counts:
            return 1.0
        longest = int((self._word_ends[width:] - self._word_ends[:-width]).max(initial=0))
        return min(counts) * longest / max(self._word_characters, 1)

    def duplicate_ngrams(self, width: int) -> float:
        """Return the share of the words' characters that stand in runs of `width` words that occurred before."""
        ngrams = self._sorted_ngrams(width)
        again = ngrams[_same_as_before(ngrams)]
        if not len(again):
            return 0.0
        starts = np.zeros(len(self._ngram_words), dtype=np.bool_)
        starts[again & _PLACE] = True
        covered = starts.copy()
        for offset in range(1, width):
            covered[offset:] |= starts[:-offset]
        return float(self._ngram_word_lengths[covered].sum() / self._word_characters)

    @cached_property
    def english_stop_words(self) -> float:
        """Share of the words that are among Gopher's eight stop words."""
        known = _hashes_of_stop_words()
        found = sum(np.count_nonzero(self._ngram_words == one) for one in known)
        return int(found) / max(len(self._ngram_words), 1)

    @cached_property
    def _classes(self) -> np.ndarray:
        codes = np.frombuffer(self.text.encode("utf-16-le", errors="surrogatepass"), dtype="<u2")
        return _class_table().take(codes)

    @cached_property
    def _counts(self) -> list[int]:
        return [int(np.count_nonzero(self._classes == each)) for each in range(_LETTER + 1)]

    @cached_property
    def _visible(self) -> int:
        return len(self._classes) - self._counts[_SPACE]

    @cached_property
    def _line_counts(self) -> Counter[str]:
        return Counter(self.lines)

    @cached_property
    def _ngram_words(self) -> np.ndarray:
        return word_hashes(self.text)

    @cached_property
    def _ngram_word_lengths(self) -> np.ndarray:
        starts, ends = _runs(self._classes >= _DIGIT)
        return ends - starts

    @cached_property
    def _word_ends(self) -> np.ndarray:
        """Characters in the words before each, and in all of them."""
        return np.cumsum(np.concatenate(([0], self._ngram_word_lengths)))

    @cached_property
    def _word_characters(self) -> int:
        return int(self._word_ends[-1])

    def _sorted_ngrams(self, width: int) -> np.ndarray:
        """Return all runs of `width` words, equal ones side by side: a hash in the upper bits, the place in the lower.

        Hash and place are sorted as one number: a plain sort is several times faster than an argsort.
        """
        ngrams = self._ngrams(width)[: int(_PLACE)] & ~_PLACE
        ngrams |= np.arange(len(ngrams), dtype=np.uint64)
        ngrams.sort()
        return ngrams

    def _ngrams(self, width: int) -> np.ndarray:
        """Return the hashes of all runs of `width` words, made from those asked for last where these are shorter.

        The words' hashes are well mixed, so that sums of their multiples need no mixing of their own.
        """
        known, ngrams = self._last_ngrams or (1, self._ngram_words)
        if known > width:
            known, ngrams = 1, self._ngram_words
        for wider in range(known + 1, width + 1):
            ngrams = ngrams[:-1] * _WORD_BASE + self._ngram_words[wider - 1 :]
        self._last_ngrams = width, ngrams
        return ngrams


def _same_as_before(ngrams: np.ndarray) -> np.ndarray:
    same = np.zeros(len(ngrams), dtype=np.bool_)
    same[1:] = (ngrams[1:] ^ ngrams[:-1]) <= _PLACE
    return same


def _starts(inside: np.ndarray) -> int:
    """Count the runs of True."""
    return int(np.count_nonzero(inside[1:] > inside[:-1])) + int(inside[:1].sum())


def _runs(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the runs of True start and end."""
    padded = np.zeros(len(inside) + 2, dtype=np.bool_)
    padded[1:-1] = inside
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    return edges[::2], edges[1::2]


@lru_cache(maxsize=1)
def _class_table() -> np.ndarray:
    return np.fromiter((_class_of(chr(code)) for code in range(0x10000)), dtype=np.uint8, count=0x10000)


def _class_of(character: str) -> int:
    if character.isspace():
        return _SPACE
    if character.isupper():
        return _UPPER
    if character.isalpha() or unicodedata.category(character) in WORD_CATEGORIES:
        return _LETTER
    if character.isalnum():
        return _DIGIT
    return _MARKUP if character in _MARKUP_CHARACTERS else _SYMBOL


@lru_cache(maxsize=1)
def _hashes_of_stop_words() -> np.ndarray:
    return word_hashes(" ".join(ENGLISH_STOP_WORDS))
