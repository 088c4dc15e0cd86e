"""Measures of a text: its words, its characters, its repetitions; whole arrays at a time.

The rules are those of Gopher (Rae et al. 2021, "Scaling Language Models", table A1 and section A1.1); `filters` holds
them against their limits.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cached_property, lru_cache

import numpy as np

from components.preprocess.deduplication.signatures import WORD_CATEGORIES, Words, word_hashes, words_of

ENGLISH_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Gopher's eight: a text without them is no English prose."""

# Classes of characters; the order matters: from _DIGIT on they make words, from _UPPER on letters.
_SPACE, _SYMBOL, _MARKUP, _DIGIT, _UPPER, _LETTER = range(6)
# Gopher's hash and ellipsis, and what TeX and Markdown leave; "<" compares numbers.
_MARKUP_CHARACTERS = frozenset("#…\\{}^_`")
_PLACE = np.uint64((1 << 24) - 1)  # the lower bits of a sorted n-gram; what follows 16 million words is not looked at
_BUCKET_SHIFT = np.uint64(64 - 12)  # 4,096 buckets
_WORD_BASE = np.uint64(0xD1342543DE82EF95)


class TextStatistics:
    """Measures of one text, each computed when it is first asked for.

    Words are what stands between white space, except in n-grams, where they are runs of letters and digits.
    """

    def __init__(self, text: str) -> None:
        """Measure this text."""
        self.text = text
        self._last_ngrams: tuple[int, np.ndarray] | None = None
        self._at_most: dict[int, int] = {}  # how often the most frequent run of so many words occurs

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
    def alphabetic_bound(self) -> float:
        """What `alphabetic` is at least, found sooner: the share of the words that begin with a letter."""
        classes = self._classes
        begin = int(np.count_nonzero((classes[1:] >= _UPPER) & (classes[:-1] == _SPACE)))
        return (begin + int(np.count_nonzero(classes[:1] >= _UPPER))) / max(self.words, 1)

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
        return (len(self.lines) - self._different_lines) / max(len(self.lines), 1)

    @cached_property
    def duplicate_line_characters(self) -> float:
        """Share of the characters that stand in lines that occurred before."""
        if len(self.lines) == self._different_lines:
            return 0.0
        repeated = sum(len(line) * (count - 1) for line, count in Counter(self.lines).items() if count > 1)
        return repeated / max(len(self.text), 1)

    def top_ngram(self, width: int) -> float:
        """Return the share of the words' characters that the most frequent run of `width` words takes up.

        Of several that are equally frequent the longest counts.
        """
        ngrams = self._sorted_ngrams(width)
        starts = np.flatnonzero(~_same_as_before(ngrams))
        counts = np.diff(starts, append=len(ngrams))
        most = self._at_most[width] = int(counts.max(initial=0))
        if most < 2:
            return 0.0
        places = (ngrams[starts[counts == most]] & _PLACE).astype(np.intp)
        longest = int((self._word_ends[places + width] - self._word_ends[places]).max())
        return min(most * longest / self._word_characters, 1.0)  # "a a a" holds "a a" twice

    def top_ngram_bound(self, width: int) -> float:
        """Return what `top_ngram` cannot exceed, found sooner.

        A run is no more frequent than the shorter ones that it begins with, nor than all runs together whose hashes
        begin with the same bits.
        """
        if not any(shorter <= width for shorter in self._at_most):
            self._at_most[width] = _largest_bucket(self._ngrams(width))
        most = min(count for shorter, count in self._at_most.items() if shorter <= width)
        longest = int((self._word_ends[width:] - self._word_ends[:-width]).max(initial=0))
        return most * longest / max(self._word_characters, 1)

    def duplicate_ngrams(self, width: int) -> float:
        """Return the share of the words' characters that stand in runs of `width` words that occurred before."""
        ngrams = self._sorted_ngrams(width)
        again = ngrams[_same_as_before(ngrams)]
        if not len(again):
            return 0.0
        starts = np.zeros(len(self.word_hashes), dtype=np.bool_)
        starts[again & _PLACE] = True
        covered = starts.copy()
        for offset in range(1, width):
            covered[offset:] |= starts[:-offset]
        return float(self._ngram_words.lengths[covered].sum() / self._word_characters)

    @property
    def word_hashes(self) -> np.ndarray:
        """Hashes of the words, as `signatures.word_hashes` makes them."""
        return self._ngram_words.hashes

    @cached_property
    def english_stop_words(self) -> float:
        """Share of the words that are among Gopher's eight stop words."""
        found = sum(np.count_nonzero(self.word_hashes == one) for one in _hashes_of_stop_words())
        return int(found) / max(len(self.word_hashes), 1)

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
    def _different_lines(self) -> int:
        return len(set(self.lines))

    @cached_property
    def _ngram_words(self) -> Words:
        return words_of(self.text)

    @cached_property
    def _word_ends(self) -> np.ndarray:
        """Characters in the words before each, and in all of them."""
        ends = np.zeros(len(self._ngram_words.lengths) + 1, dtype=np.int64)
        np.cumsum(self._ngram_words.lengths, out=ends[1:])
        return ends

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
        known, ngrams = self._last_ngrams or (1, self.word_hashes)
        if known > width:
            known, ngrams = 1, self.word_hashes
        for wider in range(known + 1, width + 1):
            ngrams = ngrams[:-1] * _WORD_BASE + self.word_hashes[wider - 1 :]
        self._last_ngrams = width, ngrams
        return ngrams


def _same_as_before(ngrams: np.ndarray) -> np.ndarray:
    same = np.zeros(len(ngrams), dtype=np.bool_)
    same[1:] = (ngrams[1:] ^ ngrams[:-1]) <= _PLACE
    return same


def _starts(inside: np.ndarray) -> int:
    """Count the runs of True."""
    return int(np.count_nonzero(inside[1:] > inside[:-1])) + int(inside[:1].sum())


def _largest_bucket(ngrams: np.ndarray) -> int:
    """Return how many share the upper bits of their hashes, where most do."""
    return int(np.bincount((ngrams >> _BUCKET_SHIFT).astype(np.intp)).max(initial=0))


@lru_cache(maxsize=1)
def _class_table() -> np.ndarray:
    return np.fromiter((_class_of(chr(code)) for code in range(0x10000)), dtype=np.uint8, count=0x10000)


def _class_of(character: str) -> int:
    if character.isspace():
        return _SPACE
    if character.isupper() and character.isalnum():  # some symbols (a letter in a circle) have cases
        return _UPPER
    if character.isalpha() or unicodedata.category(character) in WORD_CATEGORIES:
        return _LETTER
    if character.isalnum():
        return _DIGIT
    return _MARKUP if character in _MARKUP_CHARACTERS else _SYMBOL


@lru_cache(maxsize=1)
def _hashes_of_stop_words() -> np.ndarray:
    return word_hashes(" ".join(ENGLISH_STOP_WORDS))
