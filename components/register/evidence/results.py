"""The results of an evaluation as the gate compares them: question by question, article by article."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import sha256_bytes
from components.common.manifest import Manifest
from components.common.statistics import Interval, weighted_mean, wilson
from components.common.validation import first_problem

# exp() of more overflows a float64.
_LARGEST_EXPONENT = 700.0


def _nan_for_null(value: Any) -> Any:
    return math.nan if value is None else value


Number = Annotated[float, BeforeValidator(_nan_for_null)]
"""A number that JSON writes as null when it is none."""


class QuestionResult(BaseModel):
    """What a model made of one question; the hashes tell whether two models were asked the same.

    Attributes:
        prediction: The option that the model chose; empty when its answer could not be read.
        answer: The right option.
        loglikelihoods: Natural log-probability of each option, where the model was asked for them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    question_hash: str
    prompt_hash: str
    correct: bool
    prediction: str = ""
    answer: str = ""
    loglikelihoods: dict[str, Number] = Field(default_factory=dict)


class ArticleResult(BaseModel):
    """The loss on one held-out article: ``nll`` nats over ``tokens`` predicted tokens, which are ``bytes`` of text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    tokens: int
    nll: Number
    bytes: int = 0


_Row = TypeVar("_Row", QuestionResult, ArticleResult)


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

    def correct(self, ids: Iterable[str]) -> NDArray[np.bool_]:
        """Return for each of these questions whether it was answered correctly."""
        return np.fromiter((self.questions[i].correct for i in ids), dtype=np.bool_)


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured on one model.

    Attributes:
        fingerprint: Of the evaluation.
        validation_hash: Of the held-out windows.
        model: Fingerprint of the model.
        uri: The evaluation's manifest in the store.
    """

    name: str
    fingerprint: str
    validation_hash: str
    articles: Mapping[str, ArticleResult]
    benchmarks: Mapping[str, Benchmark]
    model: str = ""
    uri: str = ""

    @property
    def perplexity(self) -> float:
        """Exponential of the mean loss per token; NaN or infinite when the model is broken."""
        tokens = sum(article.tokens for article in self.articles.values())
        mean = sum(article.nll for article in self.articles.values()) / tokens if tokens else math.nan
        return math.exp(mean) if not mean > _LARGEST_EXPONENT else math.inf

    def perplexity_interval(self, confidence: float) -> Interval:
        """Perplexity with an interval over articles."""
        mean = self._mean([article.tokens for article in self.articles.values()], confidence)
        return Interval(*(math.exp(min(loss, _LARGEST_EXPONENT)) for loss in (mean.value, mean.low, mean.high)))

    def bits_per_byte(self, confidence: float) -> Interval | None:
        """Mean loss per byte of text, which models with other tokenizers share; None where bytes were not counted."""
        sizes = [article.bytes for article in self.articles.values()]
        if len(sizes) < 2 or not all(sizes):
            return None
        mean = self._mean(sizes, confidence)
        return Interval(*(nats / math.log(2) for nats in (mean.value, mean.low, mean.high)))

    def _mean(self, weights: list[int], confidence: float) -> Interval:
        return weighted_mean([article.nll for article in self.articles.values()], weights, confidence)


@dataclass(frozen=True)
class FineTuning:
    """How a model was fine-tuned before it was evaluated; two are compared under the same only.

    Attributes:
        tasks: Benchmarks whose training questions it learned from.
        method: ``full`` or ``lora``.
        fraction: Part of these questions.
        settings: Fingerprint of all settings that decide which model comes out.
    """

    tasks: tuple[str, ...]
    method: str
    fraction: float
    settings: str

    @property
    def title(self) -> str:
        """In words, such as ``fine-tuned on medqa and pubmedqa (lora)``."""
        part = "" if self.fraction == 1 else f", {self.fraction:.0%} of the questions"
        return f"fine-tuned on {' and '.join(self.tasks)} ({self.method}{part})"


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
        articles=_rows(manifest, "perplexity", ArticleResult),
        benchmarks={
            name: Benchmark(
                questions=_rows(manifest, name, QuestionResult),
                majority=float(manifest.totals.get(f"{name}_majority", math.nan)),
            )
            for name in manifest.extra.get("results", {})
        },
        model=manifest.inputs.get("model", ""),
        uri=str(manifest.extra.get("manifest_uri", "")),
    )


def _rows(manifest: Manifest, name: str, row: type[_Row]) -> dict[str, _Row]:
    shard = manifest.shard(name)
    data = storage.read(shard.uri)
    if sha256_bytes(data) != shard.sha256:
        raise InputError(f"{shard.uri} is not the file that its manifest names; delete it and rerun the evaluation.")
    try:
        rows = [row.model_validate_json(line) for line in data.splitlines()]
    except ValidationError as error:
        raise InputError(
            f"{shard.uri} holds a line that is no result ({first_problem(error)}); delete it, rerun the evaluation."
        ) from error
    by_id = {each.id: each for each in rows}
    if len(by_id) < len(rows):
        raise InputError(f"{shard.uri} holds {len(rows) - len(by_id)} results twice; delete it, rerun the evaluation.")
    return by_id
