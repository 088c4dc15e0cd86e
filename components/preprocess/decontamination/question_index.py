"""The benchmarks' test questions as an index of word n-grams: what an article must not hold is looked up here.

A question of at least `ngram` words is known by its n-grams, a shorter one by all of its words in a row. What has fewer
than `short_question_words` words ("Which of the following is true?") is looked for together with its options, or not at
all if these are few too: articles hold such words without knowing the question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from components.common.manifest import Manifest
from components.common.questions import Question, read_questions
from components.preprocess.deduplication.signatures import ngram_hashes, word_hashes
from components.preprocess.settings import DecontaminateSettings

TEST = "-test"
_FILTER_SLOTS = 1 << 22  # 4 MB that stay in the cache: most n-grams of an article are known to be none after one look


@dataclass(frozen=True)
class NgramTable:
    """The n-grams of many texts, sorted by hash."""

    width: int
    hashes: np.ndarray  # uint64, ascending, each once
    starts: np.ndarray  # int64, one more than `hashes`: where the postings of a hash begin
    questions: np.ndarray  # int32 postings
    offsets: np.ndarray  # int32 postings
    askers: np.ndarray  # int64: how many different questions have the n-gram of a hash

    @classmethod
    def build(cls, width: int, grams: Sequence[tuple[int, np.ndarray]]) -> Self:
        """Index the n-gram hashes of questions, given as pairs of question number and hashes in order.

        A question that comes several times, under several numbers, is one asker.
        """
        same = {hashes.tobytes(): number for number, hashes in reversed(grams)}
        first = _flat([np.full(len(each), same[each.tobytes()]) for _, each in grams], np.int64)
        questions = _flat([np.full(len(each), number) for number, each in grams], np.int32)
        offsets = _flat([np.arange(len(each)) for _, each in grams], np.int32)
        flat = _flat([each for _, each in grams], np.uint64)
        order = np.argsort(flat, kind="stable")
        hashes, starts, rows = np.unique(flat[order], return_index=True, return_inverse=True)
        asked = np.unique(np.stack([rows, first[order]]), axis=1)[0]
        askers = np.bincount(asked, minlength=len(hashes))
        starts = np.append(starts, len(flat)).astype(np.int64)
        return cls(width, hashes, starts, questions[order], offsets[order], askers)

    @cached_property
    def _filter(self) -> np.ndarray:
        slots = np.zeros(_FILTER_SLOTS, dtype=bool)
        slots[self.hashes & np.uint64(_FILTER_SLOTS - 1)] = True
        return slots

    def find(self, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find the n-grams that an article shares with a question.

        Args:
            words: The article's word hashes.

        Returns:
            The number of each shared run's first word in the article, ascending, and the row of its hash (int64).
        """
        grams = ngram_hashes(words, self.width)
        places = np.flatnonzero(self._filter[grams & np.uint64(_FILTER_SLOTS - 1)])
        if not len(places):
            return places, places
        rows = np.minimum(np.searchsorted(self.hashes, grams[places]), len(self.hashes) - 1)
        shared = self.hashes[rows] == grams[places]
        return places[shared], rows[shared]

    def postings(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return for rows of hashes all their postings: questions, offsets, and the row each belongs to."""
        counts = self.starts[rows + 1] - self.starts[rows]
        before = np.repeat(np.cumsum(counts) - counts, counts)
        found = np.repeat(self.starts[rows], counts) + np.arange(counts.sum()) - before
        return self.questions[found], self.offsets[found], np.repeat(rows, counts)


@dataclass(frozen=True)
class QuestionIndex:
    """All test questions of a run: who they are, and where their words are found."""

    benchmarks: list[str]  # of each question, such as `medqa-test`
    ids: list[str]
    words: np.ndarray  # words of each question, int32
    ngram: int
    short_question_words: int
    long: NgramTable
    short: NgramTable  # of a short question only its first words; `short_words` has the rest
    short_words: dict[int, np.ndarray]

    def looked_for(self) -> np.ndarray:
        """Tell of each question whether it is long enough to be looked for."""
        return self.words >= self.short_question_words


def build_index(named: Sequence[tuple[str, Question]], settings: DecontaminateSettings) -> QuestionIndex:
    """Index questions, given with the name of their benchmark and split.

    A question's words are those of its context and of the question itself, and of its options if these are too few.
    """
    long: list[tuple[int, np.ndarray]] = []
    short: list[tuple[int, np.ndarray]] = []
    short_words: dict[int, np.ndarray] = {}
    words = [_words(question, settings.short_question_words) for _, question in named]
    for number, hashes in enumerate(words):
        if len(hashes) >= settings.ngram:
            long.append((number, ngram_hashes(hashes, settings.ngram)))
        elif len(hashes) >= settings.short_question_words:
            short.append((number, ngram_hashes(hashes, settings.short_question_words)[:1]))
            short_words[number] = hashes
    return QuestionIndex(
        benchmarks=[name for name, _ in named],
        ids=[question.id for _, question in named],
        words=np.array([len(each) for each in words], dtype=np.int32),
        ngram=settings.ngram,
        short_question_words=settings.short_question_words,
        long=NgramTable.build(settings.ngram, long),
        short=NgramTable.build(settings.short_question_words, short),
        short_words=short_words,
    )


def read_test_questions(benchmarks: Manifest) -> list[tuple[str, Question]]:
    """Read every test question of the benchmarks, with the name of its benchmark and split.

    Raises:
        InputError: A file is not what its manifest says.
        StorageError: A file cannot be read.
    """
    names = [shard.name.removesuffix(TEST) for shard in benchmarks.shards if shard.name.endswith(TEST)]
    return [(name + TEST, question) for name in names for question in read_questions(benchmarks, name, "test")]


def _words(question: Question, least: int) -> np.ndarray:
    stem = f"{question.context}\n{question.question}"
    hashes = word_hashes(stem)
    return hashes if len(hashes) >= least else word_hashes("\n".join([stem, *question.options.values()]))


def _flat(arrays: Sequence[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *(each.astype(dtype) for each in arrays)])
