"""Which test questions the corpus holds, as the preprocess stage found them: they do not count when models compare."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow.parquet as pq

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest

_COLUMNS = [
    "benchmark",
    "question_id",
    "looked_for",
    "articles_overlapping",
    "articles_in_corpus",
    "coverage_in_corpus",
    "training_coverage",
]
_TEST = "-test"


@dataclass(frozen=True)
class Overlap:
    """What a test question shares with what models learned from.

    Attributes:
        looked_for: Whether it could be looked for; very short questions cannot.
        found: Whether an article of the download shared a run of words with it, be it still in the corpus or not.
        in_corpus: Whether an article of the corpus does.
        coverage: Largest share of its words that an article of the corpus holds.
        training_coverage: The same for the training questions of its own benchmark.
    """

    looked_for: bool
    found: bool
    in_corpus: bool
    coverage: float
    training_coverage: float


@dataclass(frozen=True)
class Contamination:
    """The overlaps of every test question.

    Attributes:
        benchmarks: For each benchmark, its questions by id.
        coverage: Share of a question's words from which it counts as held by the corpus.
        ngram: Words in a row that make an overlap.
        policy: What the preprocess stage did with articles that hold a question.
    """

    benchmarks: Mapping[str, Mapping[str, Overlap]]
    coverage: float = 0.5
    ngram: int = 13
    policy: Sequence[str] = field(default_factory=tuple)

    def flagged(self, benchmark: str, fine_tuned: bool = False) -> frozenset[str]:
        """Return the questions that a model may know by heart; a fine-tuned one from its training questions too."""
        found = self._flagged_by_articles.get(benchmark, frozenset())
        return found | self._flagged_by_training.get(benchmark, frozenset()) if fine_tuned else found

    def overlapping(self, benchmark: str) -> frozenset[str]:
        """Return the questions that share any run of words with an article of the corpus."""
        return self._overlapping.get(benchmark, frozenset())

    @cached_property
    def _flagged_by_articles(self) -> dict[str, frozenset[str]]:
        return self._where(lambda overlap: overlap.coverage >= self.coverage)

    @cached_property
    def _flagged_by_training(self) -> dict[str, frozenset[str]]:
        return self._where(lambda overlap: overlap.training_coverage >= self.coverage)

    @cached_property
    def _overlapping(self) -> dict[str, frozenset[str]]:
        return self._where(lambda overlap: overlap.in_corpus)

    def _where(self, holds: Callable[[Overlap], bool]) -> dict[str, frozenset[str]]:
        return {
            name: frozenset(question for question, overlap in overlaps.items() if holds(overlap))
            for name, overlaps in self.benchmarks.items()
        }


def load_contamination(corpora: Sequence[Manifest]) -> Contamination | None:
    """Read what is known of all corpora that a model learned from; None when one of them was never examined.

    Raises:
        InputError: The table of questions is not what it should be.
        StorageError: It cannot be read.
    """
    found = [_load(corpus) for corpus in corpora]
    known = [each for each in found if each is not None]
    if not known or len(known) < len(found):
        return None
    return Contamination(
        benchmarks=_joined([each.benchmarks for each in known]),
        coverage=min(each.coverage for each in known),
        ngram=min(each.ngram for each in known),
        policy=sorted({word for each in known for word in each.policy}),
    )


def _load(corpus: Manifest) -> Contamination | None:
    summary: dict[str, Any] | None = corpus.extra.get("contamination")
    if not summary:
        return None
    uri = storage.join(summary["uri"], "questions.parquet")
    try:
        rows = pq.read_table(io.BytesIO(storage.read(uri)), columns=_COLUMNS).to_pylist()
    except (ValueError, KeyError) as error:  # pyarrow's own errors are of these kinds
        raise InputError(f"{uri} is no table of test questions ({error}); rerun the assembly of the corpus.") from error
    benchmarks: dict[str, dict[str, Overlap]] = {}
    for row in rows:
        benchmarks.setdefault(row["benchmark"].removesuffix(_TEST), {})[row["question_id"]] = Overlap(
            looked_for=row["looked_for"],
            found=row["articles_overlapping"] > 0,
            in_corpus=row["articles_in_corpus"] > 0,
            coverage=row["coverage_in_corpus"],
            training_coverage=row["training_coverage"],
        )
    return Contamination(benchmarks, float(summary["coverage"]), int(summary["ngram"]), (str(summary["policy"]),))


def _joined(tables: Sequence[Mapping[str, Mapping[str, Overlap]]]) -> Mapping[str, Mapping[str, Overlap]]:
    """Join what is known of several corpora: only questions that all of them were examined for."""
    if len(tables) == 1:
        return tables[0]
    names = set.intersection(*(set(table) for table in tables))
    return {
        name: {
            i: _worst([table[name][i] for table in tables])
            for i in tables[0][name]
            if all(i in table[name] for table in tables)
        }
        for name in sorted(names)
    }


def _worst(overlaps: Sequence[Overlap]) -> Overlap:
    return Overlap(
        looked_for=all(each.looked_for for each in overlaps),
        found=any(each.found for each in overlaps),
        in_corpus=any(each.in_corpus for each in overlaps),
        coverage=max(each.coverage for each in overlaps),
        training_coverage=max(each.training_coverage for each in overlaps),
    )
