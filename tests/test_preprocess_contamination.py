"""The account of contamination: every test question, every overlapping article, the benchmarks' training questions."""

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from preprocess_helpers import clean_shard, corpus_of, deduplicate, document, prose, save_questions, tokens_of

from components.common import storage
from components.common.manifest import Manifest
from components.preprocess.corpus import assemble_corpus
from components.preprocess.decontamination.contamination import Contamination, account_for_contamination
from components.preprocess.decontamination.contamination_page import render_contamination
from components.preprocess.decontamination.decontaminate import Decontaminator
from components.preprocess.settings import DecontaminateSettings, TokenizeSettings

FIRST, SECOND, CLEAN = prose(1, 60), prose(2, 40), prose(3, 50)
QUESTIONS = {
    "medqa-test": [
        {"id": "first", "question": FIRST},
        {"id": "second", "question": SECOND},
        {"id": "clean", "question": CLEAN},
        {"id": "unseen", "question": "True is", "options": {"A": "a", "B": "b"}},
    ],
    "medqa-train": [
        {"id": "t-copy", "question": SECOND},
        {"id": "t-part", "question": " ".join(FIRST.split()[:20])},
        {"id": "t-own", "question": prose(9, 40)},
    ],
    "medmcqa-dev": [{"id": "d-other", "question": FIRST}],
}


def account(root: Path, **settings: Any) -> tuple[Manifest, Contamination]:
    """Two shards: one article per way in which a question can overlap, examined as the extraction does."""
    benchmarks = save_questions(root, QUESTIONS)
    chosen = DecontaminateSettings(action="report", **settings)
    exam = Decontaminator.of(benchmarks, chosen)
    texts = {
        "PMC1": f"{prose(11)} {FIRST}",
        "PMC2": f"{prose(12)} {' '.join(SECOND.split()[:15])}",
        "PMC3": prose(13),
    }
    copy = {"PMC4": texts["PMC1"]}
    shards = [
        clean_shard(
            root,
            f"shard-{number}",
            [document(name, text, year=2020 - number) for name, text in members.items()],
            matches=[row for name, text in members.items() for row in exam.examine(name, "", text).matches],
        )
        for number, members in enumerate((texts, copy))
    ]
    unique = deduplicate(root, shards)
    return unique, account_for_contamination(unique, benchmarks, chosen, storage.to_uri(root))


def test_both_counts_are_given_for_every_test_set(tmp_path: Path) -> None:
    _, found = account(tmp_path)
    assert found.summary["benchmarks"] == {
        "medqa-test": {
            "questions": 4,
            "looked_for": 3,
            "overlapping": 2,
            "contaminated": 1,
            "articles_overlapping": 3,
            "articles_contaminated": 2,
        }
    }
    assert (found.summary["policy"], found.summary["ngram"], found.summary["coverage"]) == ("report", 13, 0.5)


def test_training_questions_are_compared_with_their_own_test_set(tmp_path: Path) -> None:
    _, found = account(tmp_path)
    assert found.summary["training"] == {
        "medqa-train": {
            "questions": 3,
            "overlapping": 2,
            "contaminated": 1,
            "test_questions_overlapping": 2,
            "test_questions_contaminated": 1,
        },
        "medmcqa-dev": {
            "questions": 1,
            "overlapping": 0,
            "contaminated": 0,
            "test_questions_overlapping": 0,
            "test_questions_contaminated": 0,
        },
    }
    rows = [(row["training_id"], row["question_id"], row["coverage"]) for row in found.training.to_pylist()]
    assert rows == [("t-copy", "second", 1.0), ("t-part", "first", 0.3333)]


def test_an_article_that_left_as_a_copy_counts_no_longer_as_part_of_the_corpus(tmp_path: Path) -> None:
    _, found = account(tmp_path)
    assert [(row["article_id"], row["action"]) for row in found.matches.to_pylist()] == [
        ("PMC1", "keep"),
        ("PMC4", "duplicate"),
        ("PMC2", "keep"),
    ]
    first = found.questions.to_pylist()[0]
    assert (first["articles_overlapping"], first["articles_in_corpus"], first["coverage_in_corpus"]) == (2, 1, 1.0)


def test_every_test_question_has_a_row_for_scores_that_leave_contaminated_ones_out(tmp_path: Path) -> None:
    _, found = account(tmp_path)
    rows = [
        (row["question_id"], row["looked_for"], row["coverage"], row["training_coverage"]) for row in rows_of(found)
    ]
    assert rows == [
        ("first", True, 1.0, 0.3333),
        ("second", True, 0.375, 1.0),
        ("clean", True, 0.0, 0.0),
        ("unseen", False, 0.0, 0.0),
    ]


def rows_of(found: Contamination) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = found.questions.to_pylist()
    return rows


def test_the_tables_lie_in_the_store_where_the_corpus_says(tmp_path: Path) -> None:
    unique, found = account(tmp_path)
    parts = tokens_of(tmp_path, unique)
    corpus = assemble_corpus(unique, parts, TokenizeSettings(), storage.to_uri(tmp_path), found.summary)
    assert corpus.totals["test_questions_overlapping"] == 2
    assert corpus.totals["test_questions_contaminated"] == 1
    place = corpus.extra["contamination"]["uri"]
    for name in ("matches", "questions", "training"):
        stored: pa.Table = pq.read_table(io.BytesIO(storage.read(storage.join(place, f"{name}.parquet"))))
        assert stored.equals(getattr(found, name))


def test_a_corpus_without_an_account_says_nothing_of_contamination(tmp_path: Path) -> None:
    unique, _ = account(tmp_path)
    assert "contamination" not in corpus_of(tmp_path, unique).extra


def test_the_same_is_found_however_the_articles_are_spread_over_shards(tmp_path: Path) -> None:
    _, found = account(tmp_path / "one")
    _, again = account(tmp_path / "two")
    assert found.matches.equals(again.matches)
    assert found.summary["uri"].rpartition("/")[2] == again.summary["uri"].rpartition("/")[2]


def test_the_page_names_questions_and_articles_and_runs_nothing_of_theirs(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> <img src=x onerror=alert(2)> " + FIRST
    benchmarks = save_questions(tmp_path, {"medqa-test": [{"id": "<b>evil</b>", "question": evil}]})
    settings = DecontaminateSettings()
    rows = Decontaminator.of(benchmarks, settings).examine("PMC1<i>", "", evil).matches
    shard = clean_shard(tmp_path, "shard-0", [document("PMC1<i>", evil), document("PMC2", prose(5))], matches=rows)
    found = account_for_contamination(deduplicate(tmp_path, [shard]), benchmarks, settings, storage.to_uri(tmp_path))
    page = render_contamination(found)
    assert "PMC1&lt;i&gt;" in page
    assert "&lt;script&gt;" in page
    assert not any(tag in page for tag in ("<script", "<img", "<i>", "<b>evil"))
    assert "100%" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_page_says_when_nothing_was_found(tmp_path: Path) -> None:
    benchmarks = save_questions(tmp_path, {"medqa-test": QUESTIONS["medqa-test"]})
    unique = deduplicate(tmp_path, [clean_shard(tmp_path, "shard-0", [document("PMC1", prose(5))])])
    found = account_for_contamination(unique, benchmarks, DecontaminateSettings(), storage.to_uri(tmp_path))
    page = render_contamination(found)
    assert "No article that passed the filters" in page
    assert "came without training questions" in page
