"""Measures a model: held-out perplexity and the medical benchmarks, with every single result kept."""

import logging
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest, Shard
from components.common.questions import Question, majority_baseline, read_questions
from components.common.shards import finished_shard, write_shard
from components.common.statistics import weighted_mean, wilson
from components.evaluate.harness import answer_questions
from components.evaluate.models import loaded_model, model_uri
from components.evaluate.perplexity import held_out_loss
from components.evaluate.scorer import Scorer
from components.evaluate.settings import EvaluateSettings

log = logging.getLogger(__name__)

# Raise when the same model and settings would give other results or other files.
FORMAT_VERSION = 1
PERPLEXITY = "perplexity"
_LARGEST_EXPONENT = 700.0  # beyond it a float64 overflows, and JSON has no infinity


def evaluate(
    name: str,
    model: Manifest,
    benchmarks: Manifest,
    corpus: Manifest,
    settings: EvaluateSettings,
    output_root: str,
) -> Manifest:
    """Measure a model, or take the results that are in the store already.

    Args:
        name: What people call this model in the run, such as ``base`` or ``candidate``.
        model: Manifest of the model.
        benchmarks: Manifest of the benchmark files.
        corpus: Manifest of the tokenised corpus with its validation split.
        settings: What to measure.
        output_root: Folder of the store; results go to ``evaluations/<fingerprint>`` below it.

    Returns:
        Manifest of kind ``evaluation``: one JSON-lines shard per benchmark (a line per question) and one with the
        losses (a line per article). Its totals have ``perplexity`` with ``_low`` and ``_high``, and for each benchmark
        ``_accuracy`` with ``_low`` and ``_high`` (95%), ``_questions``, ``_majority`` and ``_truncated``.

    Raises:
        InputError: An input is not what it should be.
        PipelineError: The model gives no finite probabilities.
        StorageError: The store refuses.
    """
    _check_kinds(model, benchmarks, corpus)
    model_uri(model)
    inputs = {"model": model.fingerprint, "benchmarks": benchmarks.fingerprint, "corpus": corpus.fingerprint}
    own = fingerprint("evaluation", FORMAT_VERSION, _harness_version(), inputs, _settings_that_matter(settings))
    prefix = storage.join(output_root, "evaluations", own)
    questions: dict[str, list[Question]] = {
        b: read_questions(benchmarks, b, "test", settings.limit) for b in settings.benchmarks
    }
    shards = _measure(model, benchmarks, corpus, settings, prefix, questions)
    manifest = Manifest(
        kind="evaluation",
        fingerprint=own,
        inputs=inputs,
        settings=settings.model_dump(mode="json"),
        shards=shards,
        totals=_totals(shards),
        extra=_extra(name, prefix, shards),
    )
    manifest.save_uri(manifest.extra["manifest_uri"])
    return manifest


def _measure(
    model: Manifest,
    benchmarks: Manifest,
    corpus: Manifest,
    settings: EvaluateSettings,
    prefix: str,
    questions: dict[str, list[Question]],
) -> list[Shard]:
    """Return a finished shard for the perplexity and each benchmark; the model is loaded only if one is missing."""
    names = [PERPLEXITY, *questions]
    shards = {name: shard for name in names if (shard := finished_shard(prefix, name))}
    missing = [name for name in names if name not in shards]
    if not missing:
        log.info("All results of this model are in the store already: %s", prefix)
        return [shards[name] for name in names]
    with loaded_model(model, settings.device) as (network, tokenizer):
        scorer = Scorer(network, tokenizer, settings.batch_size)
        measure: dict[str, Callable[[], Shard]] = {
            name: lambda name=name: _benchmark(scorer, name, questions[name], benchmarks, settings, prefix)  # type: ignore[misc]
            for name in questions
        }
        measure[PERPLEXITY] = lambda: _perplexity(network, corpus, settings, prefix)
        for name in missing:
            shards[name] = measure[name]()
            log.info("%s", _line(shards[name]))
    return [shards[name] for name in names]


def _perplexity(network: Any, corpus: Manifest, settings: EvaluateSettings, prefix: str) -> Shard:
    loss = held_out_loss(network, corpus, settings.context_length, settings.batch_size, settings.perplexity_articles)
    mean = weighted_mean([a.nll for a in loss.articles], [a.tokens for a in loss.articles])
    stats = {
        "perplexity": _exponential(mean.value),
        "perplexity_low": _exponential(mean.low),
        "perplexity_high": _exponential(mean.high),
        "perplexity_articles": len(loss.articles),
        "perplexity_tokens": sum(article.tokens for article in loss.articles),
        "perplexity_articles_too_short": loss.skipped,
        "content_hash": loss.content_hash,
    }
    return write_shard(prefix, PERPLEXITY, {".jsonl": _json_lines(loss.articles)}, len(loss.articles), stats)


def _benchmark(
    scorer: Scorer,
    name: str,
    questions: list[Question],
    benchmarks: Manifest,
    settings: EvaluateSettings,
    prefix: str,
) -> Shard:
    examples = read_questions(benchmarks, name, "train") if settings.num_fewshot else []
    answers = answer_questions(scorer, name, questions, examples, settings.num_fewshot, settings.seed)
    accuracy = wilson(sum(answer.correct for answer in answers), len(answers))
    stats = {
        f"{name}_accuracy": accuracy.value,
        f"{name}_accuracy_low": accuracy.low,
        f"{name}_accuracy_high": accuracy.high,
        f"{name}_questions": len(answers),
        f"{name}_majority": majority_baseline(questions),
        f"{name}_truncated": scorer.truncated,
        "question_hash": fingerprint([answer.question_hash for answer in answers]),
        "prompt_hash": fingerprint([answer.prompt_hash for answer in answers]),
    }
    if scorer.truncated:
        log.warning("%d options of %s did not fit the context: their prompts lost the start", scorer.truncated, name)
    return write_shard(prefix, name, {".jsonl": _json_lines(answers)}, len(answers), stats)


def _exponential(loss: float) -> float:
    return math.exp(min(loss, _LARGEST_EXPONENT))


def _totals(shards: Sequence[Shard]) -> dict[str, int | float]:
    return {key: value for shard in shards for key, value in shard.stats.items() if not isinstance(value, str)}


def _extra(name: str, prefix: str, shards: Sequence[Shard]) -> dict[str, Any]:
    answered = [shard for shard in shards if shard.name != PERPLEXITY]
    losses = next(shard for shard in shards if shard.name == PERPLEXITY)
    return {
        "name": name,
        "manifest_uri": storage.join(prefix, "manifest.json"),
        "harness": _harness_version(),
        "results": {shard.name: shard.uri for shard in answered},
        "question_hashes": {shard.name: shard.stats["question_hash"] for shard in answered},
        "prompt_hashes": {shard.name: shard.stats["prompt_hash"] for shard in answered},
        "perplexity_uri": losses.uri,
        "validation_hash": losses.stats["content_hash"],
    }


def _line(shard: Shard) -> str:
    stats, name = shard.stats, shard.name
    if name == PERPLEXITY:
        return (
            f"Held-out perplexity {stats['perplexity']:.2f} "
            f"({stats['perplexity_low']:.2f} to {stats['perplexity_high']:.2f}), {shard.rows} articles"
        )
    return (
        f"{name}: {stats[f'{name}_accuracy']:.1%} correct ({stats[f'{name}_accuracy_low']:.1%} to "
        f"{stats[f'{name}_accuracy_high']:.1%}; always the most frequent answer {stats[f'{name}_majority']:.1%}), "
        f"{shard.rows} questions"
    )


def _settings_that_matter(settings: EvaluateSettings) -> dict[str, Any]:
    """How many sequences go at once, and where, changes nothing that counts."""
    return settings.model_dump(mode="json", exclude={"batch_size", "device"})


def _check_kinds(model: Manifest, benchmarks: Manifest, corpus: Manifest) -> None:
    for expected, manifest in (("model", model), ("benchmarks", benchmarks), ("corpus", corpus)):
        if manifest.kind != expected:
            raise InputError(f"The evaluation needs a manifest of kind {expected}, not {manifest.kind}.")


def _json_lines(rows: Sequence[BaseModel]) -> bytes:
    return "".join(row.model_dump_json() + "\n" for row in rows).encode()


def _harness_version() -> str:
    return f"lm-eval {version('lm-eval')}"
