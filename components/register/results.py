"""The results of an evaluation as the gate compares them: question by question, article by article."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import sha256_bytes
from components.common.manifest import Manifest
from components.common.statistics import Interval, weighted_mean, wilson

_Row = TypeVar("_Row", bound=BaseModel)


class QuestionResult(BaseModel):
    """What a model made of one question; the hashes tell whether two models were asked the same."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    question_hash: str
    prompt_hash: str
    correct: bool


class ArticleResult(BaseModel):
    """The loss on one held-out article: ``nll`` nats over ``tokens`` predicted tokens."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    tokens: int
    nll: float


@dataclass(frozen=True)
class Benchmark:
    """A model's answers to one benchmark, and the accuracy of always giving the most frequent answer."""

    questions: Mapping[str, QuestionResult]
    majority: float

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return sum(result.correct for result in self.questions.values()) / len(self.questions)

    def interval(self, confidence: float) -> Interval:
        """Accuracy with its Wilson interval."""
        return wilson(sum(result.correct for result in self.questions.values()), len(self.questions), confidence)


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured on one model."""

    name: str
    fingerprint: str
    validation_hash: str
    articles: Mapping[str, ArticleResult]
    benchmarks: Mapping[str, Benchmark]

    @property
    def perplexity(self) -> float:
        """Exponential of the mean loss per token; NaN or infinite when the model is broken."""
        tokens = sum(article.tokens for article in self.articles.values())
        mean = sum(article.nll for article in self.articles.values()) / tokens if tokens else math.nan
        return math.exp(mean) if not mean > 700 else math.inf

    def perplexity_interval(self, confidence: float) -> Interval:
        """Perplexity with an interval over articles."""
        articles = self.articles.values()
        mean = weighted_mean([a.nll for a in articles], [a.tokens for a in articles], confidence)
        return Interval(*(math.exp(min(loss, 700.0)) for loss in (mean.value, mean.low, mean.high)))


def load_evaluation(manifest: Manifest) -> Evaluation:
    """Read the results that a manifest of kind ``evaluation`` names.

    Raises:
        InputError: The manifest is of another kind, or its files are not what it says.
        StorageError: A file cannot be read.
    """
    if manifest.kind != "evaluation":
        raise InputError(f"The gate needs a manifest of kind evaluation, not {manifest.kind}.")
    return Evaluation(
        name=str(manifest.extra.get("name", manifest.fingerprint)),
        fingerprint=manifest.fingerprint,
        validation_hash=str(manifest.extra.get("validation_hash", "")),
        articles={row.id: row for row in _rows(manifest, "perplexity", ArticleResult)},
        benchmarks={
            name: Benchmark(
                questions={row.id: row for row in _rows(manifest, name, QuestionResult)},
                majority=float(manifest.totals.get(f"{name}_majority", math.nan)),
            )
            for name in manifest.extra.get("results", {})
        },
    )


def _rows(manifest: Manifest, name: str, row: type[_Row]) -> list[_Row]:
    shard = manifest.shard(name)
    data = storage.read(shard.uri)
    if sha256_bytes(data) != shard.sha256:
        raise InputError(f"{shard.uri} is not the file that its manifest names; delete it and rerun the evaluation.")
    try:
        return [row.model_validate_json(line) for line in data.splitlines()]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"{shard.uri} holds a line that is no result ({first['loc']}: {first['msg']}).") from error
