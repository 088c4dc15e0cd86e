"""Evaluations with chosen answers, in memory and in a store, with the corpus and the questions that belong to them."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest
from components.common.shards import write_shard
from components.register.evidence.contamination import Contamination, Overlap
from components.register.evidence.evidence import Evidence
from components.register.evidence.results import ArticleResult, Benchmark, Evaluation, QuestionResult

OPTIONS = ("A", "B", "C", "D")


@cache
def answers(correct: int, of: int = 500, first: int = 0, majority: float = 0.25) -> Benchmark:
    """`correct` questions in a row answered correctly, from the question `first` on; D is always right."""
    right = range(first, first + correct)
    return Benchmark({f"q{i}": result(f"q{i}", i in right) for i in range(of)}, majority)


@cache
def result(name: str, correct: bool) -> QuestionResult:
    return QuestionResult(
        id=name,
        question_hash=f"hash of {name}",
        prompt_hash=f"prompt of {name}",
        correct=correct,
        prediction="D" if correct else "A",
        answer="D",
        loglikelihoods={"A": -2.0, "B": -3.0, "C": -4.0, "D": -1.0 if correct else -2.5},
    )


def changed(benchmark: Benchmark, question: str, **fields: Any) -> Benchmark:
    """The same answers, but for one."""
    one = benchmark.questions[question].model_copy(update=fields)
    return Benchmark({**benchmark.questions, question: one}, benchmark.majority)


def evaluation(name: str, loss: float = 3.0, validation: str = "windows", **benchmarks: Benchmark) -> Evaluation:
    """An evaluation with a perplexity of exp(loss), on twelve articles of different difficulty."""
    sizes = {f"PMC{i}": 100 + i for i in range(12)}
    shares = {article: (i % 2 - 0.5) * 0.1 * (i < 10) for i, article in enumerate(sizes)}
    off = sum(sizes[article] * share for article, share in shares.items()) / sum(sizes.values())
    articles = {
        article: ArticleResult(id=article, tokens=size, nll=size * (loss + shares[article] - off), bytes=4 * size)
        for article, size in sizes.items()
    }
    return Evaluation(name, f"evaluation of {name}", validation, articles, benchmarks, model=f"model {name}")


def evidence(base: Evaluation, candidate: Evaluation, **more: Any) -> Evidence:
    """Evidence in which no question is contaminated, unless `contamination` says so."""
    return Evidence(base, candidate, **{"contamination": examined(candidate), "licences": {"CC BY": 90}} | more)


def examined(asked: Evaluation, flagged: Mapping[str, Iterable[str]] | None = None, coverage: float = 0.8):
    """What decontamination knows of the questions of an evaluation; each tenth shares a phrase with an article."""
    held = {name: set(ids) for name, ids in (flagged or {}).items()}
    return Contamination(
        {
            name: {
                question: overlap(coverage if question in held.get(name, ()) else 0.1 * (number % 10 == 0))
                for number, question in enumerate(benchmark.questions)
            }
            for name, benchmark in asked.benchmarks.items()
        },
        policy=("report",),
    )


@cache
def overlap(coverage: float, training_coverage: float = 0.0) -> Overlap:
    return Overlap(True, coverage > 0, coverage > 0, coverage, training_coverage)


def write_evaluation(
    folder: Path, model: str, loss: float, right: Mapping[str, int], of: int = 100, validation: str = "v"
) -> Manifest:
    """Write an evaluation as the evaluate step does: of each benchmark the first questions are answered correctly."""
    own = fingerprint(model, str(loss), dict(right), of, validation)
    prefix = f"file://{folder}/evaluations/{own}"
    tables: dict[str, list[dict[str, Any]]] = {
        name: [result(f"{name}-{i}", i < count).model_dump() for i in range(of)] for name, count in right.items()
    }
    losses = [{"id": f"PMC{i}", "tokens": 50, "nll": 50 * (loss + i / 10), "bytes": 200} for i in range(3)]
    shards = [
        write_shard(prefix, name, {".jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()}, len(rows))
        for name, rows in (tables | {"perplexity": losses}).items()
    ]
    manifest = Manifest(
        kind="evaluation",
        fingerprint=own,
        inputs={"model": model},
        settings={},
        shards=shards,
        totals={f"{name}_majority": 0.31 for name in right},
        extra={
            "name": model,
            "manifest_uri": f"{prefix}/manifest.json",
            "results": {shard.name: shard.uri for shard in shards if shard.name != "perplexity"},
            "validation_hash": validation,
        },
    )
    manifest.save_uri(manifest.extra["manifest_uri"])
    return manifest


def write_corpus(
    folder: Path,
    benchmarks: Sequence[str] = ("medqa",),
    of: int = 100,
    licences: Mapping[str, int] | None = None,
    flagged: Iterable[str] = (),
    in_training: Iterable[str] = (),
) -> Manifest:
    """Write a corpus's manifest and its table of test questions, as the preprocess stage does.

    `flagged` are the ids, such as ``medqa-3``, that an article of the corpus holds, `in_training` those that the
    benchmark's own training questions hold.
    """
    held, learned = set(flagged), set(in_training)
    ids = [(name, f"{name}-{i}") for name in benchmarks for i in range(of)]
    rows = [_contamination_row(name, each, each in held, each in learned) for name, each in ids]
    counts = dict(licences or {"CC BY 4.0": 7, "CC0 1.0": 2})
    mark = fingerprint(rows, counts)
    place = folder / "contamination" / mark
    place.mkdir(parents=True, exist_ok=True)
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), table)
    (place / "questions.parquet").write_bytes(table.getvalue())
    return Manifest(
        kind="corpus",
        fingerprint=mark,
        inputs={},
        settings={},
        shards=[],
        totals={"documents": sum(counts.values())},
        extra={
            "counts": {"licence": counts},
            "contamination": {"uri": place.as_uri(), "policy": "report", "coverage": 0.5, "ngram": 13},
        },
    )


def write_questions(folder: Path, benchmarks: Sequence[str] = ("medqa",), of: int = 100) -> Manifest:
    """Write the benchmark files, with a text that a careless page would run."""
    rows = {
        name: [
            {
                "id": f"{name}-{i}",
                "question": f"Which <b>drug</b> helps patient {i}?",
                "options": {letter: f"drug {letter}{i}" for letter in OPTIONS},
                "answer": "D",
            }
            for i in range(of)
        ]
        for name in benchmarks
    }
    shards = [
        write_shard(
            f"file://{folder}/benchmarks",
            f"{name}-test",
            {".jsonl": "".join(json.dumps(row) + "\n" for row in lines).encode()},
            len(lines),
        )
        for name, lines in rows.items()
    ]
    mark = fingerprint([shard.sha256 for shard in shards])
    return Manifest(kind="benchmarks", fingerprint=mark, inputs={}, settings={}, shards=shards, totals={})


def _contamination_row(benchmark: str, question: str, held: bool, in_training: bool) -> dict[str, Any]:
    return {
        "benchmark": f"{benchmark}-test",
        "question_id": question,
        "question": f"What of {question}?",
        "words": 20,
        "looked_for": True,
        "articles_overlapping": int(held),
        "articles_contaminated": int(held),
        "coverage": 0.9 * held,
        "articles_in_corpus": int(held),
        "coverage_in_corpus": 0.9 * held,
        "training_coverage": 0.9 * in_training,
    }
