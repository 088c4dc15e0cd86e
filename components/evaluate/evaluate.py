"""Measures a model: held-out perplexity and the medical benchmarks, with every single result kept."""

import logging
import math
from collections.abc import Sequence
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
from components.evaluate.answered import Answered, Resuming
from components.evaluate.catalogue import BENCHMARKS
from components.evaluate.engine import Engine, open_engine
from components.evaluate.formats import WRITTEN
from components.evaluate.harness import Answer, answer_questions
from components.evaluate.models import model_uri
from components.evaluate.perplexity import ArticleLoss, held_out_loss
from components.evaluate.settings import EvaluateSettings
from components.evaluate.tasks import Shots

log = logging.getLogger(__name__)

# Raise when the same model and settings would give other results or other files.
FORMAT_VERSION = 2
PERPLEXITY = "perplexity"
_SHOWN, _SHOWN_CHARACTERS = 3, 200
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
        losses (a line per article). Its totals have ``perplexity`` (per token) and ``perplexity_per_byte`` with
        ``_low`` and ``_high``, ``bits_per_byte``, and for each benchmark ``_accuracy`` with ``_low`` and ``_high``
        (95%), ``_questions``, ``_majority`` and ``_truncated``; where answers are written, ``_unparsable``. An
        interrupted evaluation goes on where it stopped.

    Raises:
        InputError: An input is not what it should be.
        PipelineError: The model gives no finite probabilities.
        StorageError: The store refuses.
    """
    _check_kinds(model, benchmarks, corpus)
    model_uri(model)
    settings = settings.after(model.settings.get("objective"))
    inputs = {"model": model.fingerprint, "benchmarks": benchmarks.fingerprint, "corpus": corpus.fingerprint}
    own = fingerprint("evaluation", FORMAT_VERSION, _harness_version(), inputs, _settings_that_matter(settings))
    prefix = storage.join(output_root, "evaluations", own)
    questions: dict[str, list[Question]] = {
        b: read_questions(benchmarks, b, "test", settings.limit) for b in settings.benchmarks
    }
    shards = _measure(name, model, benchmarks, corpus, settings, prefix, questions)
    manifest = Manifest(
        kind="evaluation",
        fingerprint=own,
        inputs=inputs,
        settings=settings.model_dump(mode="json"),
        shards=shards,
        totals=_totals(shards),
        extra=_extra(name, prefix, shards, settings),
    )
    manifest.save_uri(manifest.extra["manifest_uri"])
    return manifest


def _measure(
    name: str,
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
    with open_engine(name, model, settings) as engine:
        for part in missing:
            if part == PERPLEXITY:
                shards[part] = _perplexity(engine, corpus, settings, prefix)
            else:
                shards[part] = _benchmark(engine, part, questions[part], benchmarks, settings, prefix)
            log.info("%s", _line(shards[part]))
    return [shards[name] for name in names]


def _perplexity(engine: Engine, corpus: Manifest, settings: EvaluateSettings, prefix: str) -> Shard:
    halved = engine.halved
    loss = held_out_loss(engine, corpus, settings.context_length, settings.perplexity_articles)
    stats = {
        **_rates(loss.articles),
        "perplexity_articles": len(loss.articles),
        "perplexity_tokens": sum(article.tokens for article in loss.articles),
        "perplexity_bytes": sum(article.bytes for article in loss.articles),
        "perplexity_articles_too_short": loss.skipped,
        "perplexity_halved_batches": engine.halved - halved,
        "content_hash": loss.content_hash,
    }
    return write_shard(prefix, PERPLEXITY, {".jsonl": _json_lines(loss.articles)}, len(loss.articles), stats)


def _rates(articles: Sequence[ArticleLoss]) -> dict[str, float]:
    """Perplexity per token and per byte, each with its interval over articles."""
    losses = [article.nll for article in articles]
    per_token = weighted_mean(losses, [article.tokens for article in articles])
    per_byte = weighted_mean(losses, [article.bytes for article in articles])
    rates = {"bits_per_byte": per_byte.value / math.log(2)}
    for name, mean in (("perplexity", per_token), ("perplexity_per_byte", per_byte)):
        rates |= {name: _exponential(mean.value), f"{name}_low": _exponential(mean.low)}
        rates[f"{name}_high"] = _exponential(mean.high)
    return rates


def _benchmark(
    engine: Engine,
    name: str,
    questions: list[Question],
    benchmarks: Manifest,
    settings: EvaluateSettings,
    prefix: str,
) -> Shard:
    shots = Shots(settings.shots(name), settings.common_examples, settings.seed)
    examples = read_questions(benchmarks, name, BENCHMARKS[name].examples) if shots.count else []
    answered, halved = Answered(storage.join(prefix, "answered", name), settings.save_seconds), engine.halved
    lm, length = Resuming(engine.lm, answered), settings.max_answer_tokens
    answers = answer_questions(lm, name, questions, examples, shots, settings.format, length)
    accuracy = wilson(sum(answer.correct for answer in answers), len(answers))
    stats = {
        f"{name}_accuracy": accuracy.value,
        f"{name}_accuracy_low": accuracy.low,
        f"{name}_accuracy_high": accuracy.high,
        f"{name}_questions": len(answers),
        f"{name}_majority": majority_baseline(questions),
        f"{name}_truncated": answered.truncated,
        f"{name}_halved_batches": engine.halved - halved,
        "question_hash": fingerprint([answer.question_hash for answer in answers]),
        "prompt_hash": fingerprint([answer.prompt_hash for answer in answers]),
    }
    if settings.format == WRITTEN:
        stats[f"{name}_unparsable"] = _unparsable(name, answers)
    if answered.truncated:
        log.warning("%d options of %s did not fit the context: their prompts lost the start", answered.truncated, name)
    shard = write_shard(prefix, name, {".jsonl": _json_lines(answers)}, len(answers), stats)
    answered.delete()
    return shard


def _unparsable(name: str, answers: Sequence[Answer]) -> int:
    """Count the written answers that name no option, and show some."""
    none = [answer for answer in answers if not answer.prediction]
    if none:
        log.warning("%d of %d answers to %s name no option and count as wrong, such as:", len(none), len(answers), name)
    for answer in none[:_SHOWN]:
        log.warning("%s: %s", answer.id, repr((answer.generated or "")[:_SHOWN_CHARACTERS]))
    return len(none)


def _exponential(loss: float) -> float:
    return math.exp(min(loss, _LARGEST_EXPONENT))


def _totals(shards: Sequence[Shard]) -> dict[str, int | float]:
    return {key: value for shard in shards for key, value in shard.stats.items() if not isinstance(value, str)}


def _extra(name: str, prefix: str, shards: Sequence[Shard], settings: EvaluateSettings) -> dict[str, Any]:
    answered = [shard for shard in shards if shard.name != PERPLEXITY]
    losses = next(shard for shard in shards if shard.name == PERPLEXITY)
    return {
        "name": name,
        "manifest_uri": storage.join(prefix, "manifest.json"),
        "harness": _harness_version(),
        "engine": settings.engine.kind,
        "format": settings.format,
        "num_fewshot": {shard.name: settings.shots(shard.name) for shard in answered},
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
    """How much goes at once, and where, changes nothing that counts; another engine rounds otherwise."""
    place = {"batch_tokens", "batch_size", "save_seconds", "device", "num_fewshot", "fine_tuned_format"}
    counts = {name: settings.shots(name) for name in settings.benchmarks}
    place |= set() if settings.format == WRITTEN else {"max_answer_tokens"}
    exact = settings.model_dump(mode="json", exclude=place | {"engine"})
    return exact | {"num_fewshot": counts, "engine": settings.engine.model_dump(include={"kind", "model"})}


def _check_kinds(model: Manifest, benchmarks: Manifest, corpus: Manifest) -> None:
    for expected, manifest in (("model", model), ("benchmarks", benchmarks), ("corpus", corpus)):
        if manifest.kind != expected:
            raise InputError(f"The evaluation needs a manifest of kind {expected}, not {manifest.kind}.")


def _json_lines(rows: Sequence[BaseModel]) -> bytes:
    return "".join(row.model_dump_json() + "\n" for row in rows).encode()


def _harness_version() -> str:
    return f"lm-eval {version('lm-eval')}"
