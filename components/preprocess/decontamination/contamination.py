"""The account of contamination: which test questions overlap with which articles, and with the training questions.

Three tables lie beside the corpus, as Parquet: `matches` (a row for each article and question that share a run of
words), `questions` (a row for every test question, for scores that leave contaminated ones out) and `training` (test
questions that a benchmark's own training or development questions hold).
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.common import storage
from components.common.fingerprint import fingerprint
from components.common.instruction_set import INSTRUCTIONS
from components.common.manifest import Manifest, Shard
from components.common.questions import Question, read_questions
from components.preprocess.decontamination.decontaminate import MATCH_SCHEMA, SUFFIX, Decontaminator, to_parquet
from components.preprocess.decontamination.question_index import TEST, build_index, read_test_questions
from components.preprocess.deduplication.duplicates import DUPLICATE_ID
from components.preprocess.settings import DecontaminateSettings

FORMAT_VERSION = 1
QUESTION_SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("question_id", pa.string()),
        ("question", pa.string()),
        ("words", pa.int32()),
        ("looked_for", pa.bool_()),
        ("articles_overlapping", pa.int32()),
        ("articles_contaminated", pa.int32()),
        ("coverage", pa.float64()),
        ("articles_in_corpus", pa.int32()),
        ("coverage_in_corpus", pa.float64()),
        ("training_coverage", pa.float64()),
    ]
)
"""A row for every test question. `coverage` is the largest of any article, `..._in_corpus` counts only what the model
learns from, `training_coverage` is the largest of any training or development question of its own benchmark."""

TRAINING_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("training_id", pa.string()),
        ("benchmark", pa.string()),
        ("question_id", pa.string()),
        ("question_words", pa.int32()),
        ("covered_words", pa.int32()),
        ("coverage", pa.float64()),
        ("contaminated", pa.bool_()),
        ("passage", pa.string()),
    ]
)

_DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Contamination:
    """What was found: the tables, and the totals that the corpus's manifest carries."""

    matches: pa.Table
    questions: pa.Table
    training: pa.Table
    summary: dict[str, Any]


def account_for_contamination(
    deduplicated: Manifest, benchmarks: Manifest, settings: DecontaminateSettings, output_root: str
) -> Contamination:
    """Sum up what the extraction found in the articles, and compare the benchmarks' training with their test questions.

    Args:
        deduplicated: What `find_duplicates` returned; its clean shards have their rows of matches beside them.
        benchmarks: What the run evaluates.
        settings: What counts as contaminated.
        output_root: URI of the artifact store; the tables go to `contamination/<fingerprint>/`.

    Returns:
        The tables; `summary` holds for each test set and each training set how many questions there are, how many
        overlap at all and how many are contaminated, the action, and the tables' place as `uri`.

    Raises:
        InputError: A file of questions is not what its manifest says.
        StorageError: The store cannot be read or written.
    """
    matches = _matches(deduplicated)
    named = read_test_questions(benchmarks)
    decontaminator = Decontaminator(build_index(named, settings), settings, frozenset())
    training, training_sizes = _training(benchmarks, decontaminator)
    questions = _questions(named, decontaminator, matches, training)
    mark = fingerprint(
        deduplicated.fingerprint, benchmarks.fingerprint, settings.model_dump(mode="json"), FORMAT_VERSION
    )
    prefix = storage.join(output_root, "contamination", mark)
    for name, table in (("matches", matches), ("questions", questions), ("training", training)):
        storage.write(storage.join(prefix, f"{name}.parquet"), to_parquet(table))
    summary = {
        "uri": prefix,
        "policy": settings.action,
        "coverage": settings.coverage,
        "ngram": settings.ngram,
        "benchmarks": _by_benchmark(questions, matches),
        "training": _by_training_set(training, training_sizes),
    }
    return Contamination(matches, questions, training, summary)


def _matches(deduplicated: Manifest) -> pa.Table:
    """Read the matches of all clean shards; articles that left as copies of others are marked."""
    tables = [MATCH_SCHEMA.empty_table()]
    for shard in deduplicated.shards:
        if shard.stats.get("overlaps"):
            table = pq.read_table(io.BytesIO(storage.read(_uri(shard))))
            gone = pc.is_in(table["article_id"], value_set=_copies(deduplicated, shard.name))
            action = pc.if_else(gone, _DUPLICATE, table["action"])
            tables.append(table.set_column(table.schema.get_field_index("action"), "action", action))
    order = [("coverage", "descending"), ("benchmark", "ascending"), ("question_id", "ascending")]
    return pa.concat_tables(tables).sort_by([*order, ("article_id", "ascending")])


def _copies(deduplicated: Manifest, shard_name: str) -> pa.Array:
    """Return the ids of the articles that left as copies of another; of one listed twice, the other row stays."""
    uri = storage.join(deduplicated.extra["removed_prefix"], f"{shard_name}.parquet")
    removed = pq.read_table(io.BytesIO(storage.read(uri)), columns=["article_id", "reason"])
    return removed.filter(pc.field("reason") != DUPLICATE_ID)["article_id"].combine_chunks()


def _uri(shard: Shard) -> str:
    return shard.uri.removesuffix(".parquet") + SUFFIX


def _training(benchmarks: Manifest, decontaminator: Decontaminator) -> tuple[pa.Table, dict[str, int]]:
    """Look for test questions in the other questions of their own benchmark."""
    rows: list[dict[str, Any]] = []
    sizes: dict[str, int] = {}
    for benchmark, split in _other_splits(benchmarks):
        name = f"{benchmark}-{split}"
        others = read_questions(benchmarks, benchmark, split)
        sizes[name] = len(others)
        for question in others:
            found = decontaminator.examine(question.id, "", _whole(question)).matches
            own = (match for match in found if match["benchmark"] == benchmark + TEST)
            rows += [{"split": name, "training_id": question.id, **match} for match in own]
    table = pa.Table.from_pylist(rows, TRAINING_SCHEMA)
    return table.sort_by([("coverage", "descending"), ("split", "ascending"), ("training_id", "ascending")]), sizes


def _other_splits(benchmarks: Manifest) -> Iterator[tuple[str, str]]:
    for shard in benchmarks.shards:
        benchmark, _, split = shard.name.rpartition("-")
        if split != "test" and shard.name != INSTRUCTIONS:
            yield benchmark, split


def _whole(question: Question) -> str:
    return "\n".join([question.context, question.question, *question.options.values()])


def _questions(
    named: list[tuple[str, Question]], decontaminator: Decontaminator, matches: pa.Table, training: pa.Table
) -> pa.Table:
    found = _grouped(matches, ["benchmark", "question_id"])
    trained = _grouped(training, ["benchmark", "question_id"])
    rows = []
    index = decontaminator.index
    for (benchmark, question), words, looked_for in zip(named, index.words, index.looked_for(), strict=True):
        own = found.get((benchmark, question.id), [])
        in_corpus = [one for one in own if one["action"] == "keep"]
        rows.append(
            {
                "benchmark": benchmark,
                "question_id": question.id,
                "question": question.question,
                "words": int(words),
                "looked_for": bool(looked_for),
                "articles_overlapping": len(own),
                "articles_contaminated": sum(one["contaminated"] for one in own),
                "coverage": _largest(own),
                "articles_in_corpus": len(in_corpus),
                "coverage_in_corpus": _largest(in_corpus),
                "training_coverage": _largest(trained.get((benchmark, question.id), [])),
            }
        )
    return pa.Table.from_pylist(rows, QUESTION_SCHEMA)


def _grouped(table: pa.Table, keys: list[str]) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def _largest(rows: list[dict[str, Any]]) -> float:
    return max((row["coverage"] for row in rows), default=0.0)


def _by_benchmark(questions: pa.Table, matches: pa.Table) -> dict[str, dict[str, int]]:
    found = _grouped(matches, ["benchmark"])
    return {
        benchmark: {
            "questions": len(rows),
            "looked_for": sum(row["looked_for"] for row in rows),
            "overlapping": sum(row["articles_overlapping"] > 0 for row in rows),
            "contaminated": sum(row["articles_contaminated"] > 0 for row in rows),
            "articles_overlapping": _distinct(found.get((benchmark,), []), "article_id"),
            "articles_contaminated": _distinct(_guilty(found.get((benchmark,), [])), "article_id"),
        }
        for (benchmark,), rows in _grouped(questions, ["benchmark"]).items()
    }


def _by_training_set(training: pa.Table, sizes: dict[str, int]) -> dict[str, dict[str, int]]:
    found = _grouped(training, ["split"])
    return {
        split: {
            "questions": size,
            "overlapping": _distinct(found.get((split,), []), "training_id"),
            "contaminated": _distinct(_guilty(found.get((split,), [])), "training_id"),
            "test_questions_overlapping": _distinct(found.get((split,), []), "question_id"),
            "test_questions_contaminated": _distinct(_guilty(found.get((split,), [])), "question_id"),
        }
        for split, size in sizes.items()
    }


def _guilty(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["contaminated"]]


def _distinct(rows: list[dict[str, Any]], column: str) -> int:
    return len({row[column] for row in rows})
