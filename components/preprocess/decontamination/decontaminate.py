"""Test questions in articles: found by the words in a row that both share, judged by how much of a question they cover.

Any run of 13 words in common says little: clinical vignettes share their phrases. What counts is the share of the
question's words that such runs cover, those aside that many questions have in common; both are reported, and only the
second is acted upon.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.common.manifest import Manifest
from components.preprocess.decontamination.question_index import QuestionIndex, build_index, read_test_questions
from components.preprocess.deduplication.signatures import WORD_CATEGORIES, word_hashes
from components.preprocess.settings import DecontaminateSettings

SUFFIX = ".contamination.parquet"
"""Of the file beside a clean shard that holds its rows of `MATCH_SCHEMA`."""

CONTAMINATED = "contaminated"
TEST_ARTICLE = "test-article"
MATCH_SCHEMA = pa.schema(
    [
        ("article_id", pa.string()),
        ("benchmark", pa.string()),
        ("question_id", pa.string()),
        ("question_words", pa.int32()),
        ("covered_words", pa.int32()),
        ("coverage", pa.float64()),
        ("contaminated", pa.bool_()),
        ("action", pa.string()),
        ("passage", pa.string()),
    ]
)
"""A row for each article and question that share a run of words. `coverage` is `covered_words / question_words`,
`contaminated` says that it reaches the setting, `action` what became of the article (drop, cut, keep), `passage` is the
longest shared run as the article has it."""

# What more questions share is how questions are put ("is the most appropriate next step in the management of this
# patient"), not what is asked; Brown et al. 2020 ("GPT-3", appendix C) leave such n-grams out too.
_MAX_ASKERS = 2
_PUBMEDQA_TEST = "pubmedqa-test"
_PASSAGE_CHARACTERS = 300
_BLOCK_END = "\n\n"


@dataclass(frozen=True)
class Verdict:
    """What becomes of an article: its text, why it is dropped (or None), and a row of `MATCH_SCHEMA` per question."""

    text: str
    reason: str | None = None
    matches: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Overlap:
    """What an article shares with one question."""

    question: int
    covered: int  # words of the question, without phrases that many questions share
    runs: list[tuple[int, int]]  # of the article: first word and the one after the last, ascending and apart


@dataclass(frozen=True)
class Decontaminator:
    """Keeps test questions out of the corpus; travels to worker processes."""

    index: QuestionIndex
    settings: DecontaminateSettings
    test_pmids: frozenset[str]  # of the articles that PubMedQA's test questions were made from

    @classmethod
    def of(cls, benchmarks: Manifest, settings: DecontaminateSettings) -> Self:
        """Make one for all test questions of a run's benchmarks.

        Raises:
            InputError: A file of questions is not what its manifest says.
            StorageError: A file of questions cannot be read.
        """
        named = read_test_questions(benchmarks)
        pmids = frozenset(question.id for name, question in named if name == _PUBMEDQA_TEST)
        return cls(build_index(named, settings), settings, frozenset() if settings.test_articles else pmids)

    def examine(self, article_id: str, pmid: str, text: str) -> Verdict:
        """Look for test questions in an article and do what the settings ask for.

        Args:
            article_id: For the rows of matches.
            pmid: Its PubMed id, "" when unknown: PubMedQA's test questions were made from the articles of that id.
            text: Blocks separated by blank lines.
        """
        found = overlaps(text, self.index)
        guilty = [one for one in found if self._coverage(one) >= self.settings.coverage]
        reason = TEST_ARTICLE if pmid in self.test_pmids else None
        action = "drop" if reason else self.settings.action if guilty else "report"
        if action == "drop":
            reason = reason or CONTAMINATED
        matches = [self._match(article_id, text, one, action) for one in found]
        if action == "cut":
            text = without_blocks(text, [run for one in guilty for run in one.runs])
        return Verdict(text, reason, matches)

    def _coverage(self, overlap: Overlap) -> float:
        return overlap.covered / int(self.index.words[overlap.question])

    def _match(self, article_id: str, text: str, overlap: Overlap, action: str) -> dict[str, Any]:
        coverage = self._coverage(overlap)
        return {
            "article_id": article_id,
            "benchmark": self.index.benchmarks[overlap.question],
            "question_id": self.index.ids[overlap.question],
            "question_words": int(self.index.words[overlap.question]),
            "covered_words": overlap.covered,
            "coverage": round(coverage, 4),
            "contaminated": coverage >= self.settings.coverage,
            "action": "keep" if action == "report" else action,
            "passage": _passage(text, max(overlap.runs, key=lambda run: (run[1] - run[0], -run[0]))),
        }


def overlaps(text: str, index: QuestionIndex) -> list[Overlap]:
    """Find the questions that share a run of words with a text, in the order of the questions."""
    words = word_hashes(text)
    found = [*_long_overlaps(words, index), *_short_overlaps(words, index)]
    return sorted(found, key=lambda overlap: overlap.question)


def without_blocks(text: str, runs: list[tuple[int, int]]) -> str:
    """Return a text without the blocks that hold a word of one of the runs."""
    kept, first = [], 0
    for block in text.split(_BLOCK_END):
        last = first + len(word_hashes(block))
        if not any(start < last and end > first for start, end in runs):
            kept.append(block)
        first = last
    return _BLOCK_END.join(kept)


def write_matches(rows: list[dict[str, Any]]) -> bytes:
    """Return rows of `MATCH_SCHEMA` as a Parquet file."""
    return to_parquet(pa.Table.from_pylist(rows, MATCH_SCHEMA))


def to_parquet(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue().to_pybytes()


def _long_overlaps(words: np.ndarray, index: QuestionIndex) -> Iterator[Overlap]:
    """Yield the questions of which an n-gram stands in the text."""
    table = index.long
    places, rows = table.find(words)
    questions, offsets, posted = table.postings(np.unique(rows))
    for question in np.unique(questions).tolist():
        of_question = questions == question
        own = of_question & (table.askers[posted] <= _MAX_ASKERS)
        covered = np.zeros(index.words[question], dtype=bool)
        covered[(offsets[own, None] + np.arange(table.width)).ravel()] = True
        runs = _merged(places[np.isin(rows, posted[of_question])], table.width)
        yield Overlap(question, int(covered.sum()), runs)


def _short_overlaps(words: np.ndarray, index: QuestionIndex) -> Iterator[Overlap]:
    """Yield the short questions that stand in the text whole."""
    table = index.short
    places, rows = table.find(words)
    questions, _, posted = table.postings(np.unique(rows))
    for question, row in zip(questions.tolist(), posted.tolist(), strict=True):
        wanted = index.short_words[question]
        whole = [place for place in places[rows == row].tolist() if _stands_at(words, wanted, place)]
        if whole:
            yield Overlap(question, len(wanted), _merged(np.array(whole), len(wanted)))


def _stands_at(words: np.ndarray, wanted: np.ndarray, place: int) -> bool:
    return np.array_equal(words[place : place + len(wanted)], wanted)


def _merged(places: np.ndarray, width: int) -> list[tuple[int, int]]:
    """Join runs of `width` words that touch; `places` ascend."""
    breaks = np.flatnonzero(np.diff(places) > width) + 1
    parts = np.split(places, breaks)
    return [(int(part[0]), int(part[-1]) + width) for part in parts]


def _passage(text: str, run: tuple[int, int]) -> str:
    """Return the characters of a run of words, as far as they stand in the block where it begins."""
    first = 0
    for block in text.split(_BLOCK_END):
        count = len(word_hashes(block))
        if run[0] < first + count:
            spans = _word_spans(block)[run[0] - first : run[1] - first]
            return block[spans[0][0] : spans[-1][1]][:_PASSAGE_CHARACTERS]
        first += count
    return ""


def _word_spans(text: str) -> list[tuple[int, int]]:
    """Return where each word begins and ends, for words as `word_hashes` counts them."""
    spans, start = [], -1
    for place, character in enumerate(text + " "):
        # Beyond the basic plane every character counts as part of a word.
        inside = character.isalnum() or character > "\uffff" or unicodedata.category(character) in WORD_CATEGORIES
        if inside and start < 0:
            start = place
        elif not inside and start >= 0:
            spans.append((start, place))
            start = -1
    return spans
