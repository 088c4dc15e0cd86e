"""Test questions are found in articles by their words in a row, and judged by how much of the question is covered."""

import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from preprocess_helpers import prose, save_questions

from components.preprocess.decontamination.decontaminate import Decontaminator, Verdict
from components.preprocess.settings import DecontaminateSettings

VIGNETTE = prose(1, 60)
SHORT = "Which enzyme breaks down cholesterol esters in lysosomes overnight?"
TINY = "Drug of choice for scabies:"
TINY_OPTIONS = {"A": "Topical permethrin", "B": "Oral mebendazole", "C": "Dapsone", "D": "Ivermectin and albendazole"}
PHRASE = "which of the following is the most appropriate next step in the management of this patient today"
QUESTIONS = {
    "medqa-test": [
        {"id": "q-vignette", "question": VIGNETTE},
        *({"id": f"q-phrase-{n}", "question": f"{prose(50 + n, 12)} {PHRASE}"} for n in range(3)),
    ],
    "medmcqa-test": [
        {"id": "q-short", "question": SHORT},
        {"id": "q-tiny", "question": TINY, "options": TINY_OPTIONS},
        {"id": "q-nothing", "question": "True is", "options": {"A": "a", "B": "b"}},
    ],
    "pubmedqa-test": [{"id": "20000001", "question": "Does it work?", "context": prose(7, 80)}],
    "medqa-train": [{"id": "t-1", "question": prose(99, 30)}],
}
FILLING = [prose(100 + number, 70) for number in range(6)]


def decontaminator(folder: Path, **settings: Any) -> Decontaminator:
    return Decontaminator.of(save_questions(folder, QUESTIONS), DecontaminateSettings(**settings))


def article(*planted: str) -> str:
    return "\n\n".join([*FILLING[:3], *planted, *FILLING[3:]])


def found(verdict: Verdict) -> list[tuple[str, int, bool, str]]:
    return [(row["question_id"], row["covered_words"], row["contaminated"], row["action"]) for row in verdict.matches]


def words(text: str, first: int, last: int) -> str:
    return " ".join(text.split()[first:last])


def test_an_article_without_questions_is_left_alone(tmp_path: Path) -> None:
    assert decontaminator(tmp_path).examine("PMC1", "123", article()) == Verdict(article())


def test_a_question_in_other_case_and_punctuation_is_found_and_its_article_dropped(tmp_path: Path) -> None:
    text = article("BOX 1. " + VIGNETTE.upper().replace(" ", ", ") + "!")
    verdict = decontaminator(tmp_path).examine("PMC1", "", text)
    assert verdict.reason == "contaminated"
    assert verdict.matches == [
        {
            "article_id": "PMC1",
            "benchmark": "medqa-test",
            "question_id": "q-vignette",
            "question_words": 60,
            "covered_words": 60,
            "coverage": 1.0,
            "contaminated": True,
            "action": "drop",
            "passage": VIGNETTE.upper().replace(" ", ", ")[:300],
        }
    ]


@pytest.mark.parametrize(
    ("share", "covered", "contaminated"), [(12, 0, False), (13, 13, False), (29, 29, False), (30, 30, True)]
)
def test_coverage_decides_and_both_counts_are_reported(
    tmp_path: Path, share: int, covered: int, contaminated: bool
) -> None:
    verdict = decontaminator(tmp_path).examine("PMC1", "", article(words(VIGNETTE, 5, 5 + share)))
    assert verdict.reason == ("contaminated" if contaminated else None)
    action = "drop" if contaminated else "keep"
    assert found(verdict) == ([("q-vignette", covered, contaminated, action)] if covered else [])


def test_parts_of_a_question_scattered_over_an_article_add_up(tmp_path: Path) -> None:
    text = article(words(VIGNETTE, 0, 20), FILLING[0], words(VIGNETTE, 15, 35), words(VIGNETTE, 0, 20))
    verdict = decontaminator(tmp_path).examine("PMC1", "", text)
    assert found(verdict) == [("q-vignette", 35, True, "drop")]


def test_a_phrase_that_many_questions_share_is_reported_but_covers_nothing(tmp_path: Path) -> None:
    verdict = decontaminator(tmp_path, coverage=0.1).examine("PMC1", "", article(PHRASE))
    assert verdict.reason is None
    assert found(verdict) == [(f"q-phrase-{number}", 0, False, "keep") for number in range(3)]


def test_a_question_that_the_benchmark_holds_many_times_is_no_phrase(tmp_path: Path) -> None:
    again = [{"id": f"again-{number}", "question": VIGNETTE} for number in range(5)]
    index = Decontaminator.of(save_questions(tmp_path, {"medqa-test": again}), DecontaminateSettings())
    assert [one[1:3] for one in found(index.examine("PMC1", "", article(VIGNETTE)))] == [(60, True)] * 5


def test_a_short_question_must_stand_there_whole(tmp_path: Path) -> None:
    whole = decontaminator(tmp_path).examine("PMC1", "", article(f"They ask: {SHORT.lower()} Nobody knows."))
    assert found(whole) == [("q-short", 9, True, "drop")]
    assert whole.matches[0]["passage"] == SHORT.lower().rstrip("?")
    assert found(decontaminator(tmp_path).examine("PMC1", "", article(words(SHORT, 0, 8) + " daily"))) == []


def test_the_shortest_questions_are_looked_for_with_their_options(tmp_path: Path) -> None:
    exam = decontaminator(tmp_path)
    assert exam.examine("PMC1", "", article(TINY)) == Verdict(article(TINY))
    book = f"12. {TINY} A. " + " ".join(f"{option}" for option in TINY_OPTIONS.values())
    assert exam.examine("PMC1", "", article(book.replace(" A. ", " "))).reason == "contaminated"
    assert exam.index.looked_for().tolist().count(False) == 1


def test_cutting_takes_out_the_paragraphs_that_hold_the_question_and_no_other(tmp_path: Path) -> None:
    planted = [words(VIGNETTE, 0, 30), f"{FILLING[1]} {words(VIGNETTE, 30, 60)} and so on", words(VIGNETTE, 3, 40)]
    verdict = decontaminator(tmp_path, action="cut").examine("PMC1", "", article(*planted))
    assert verdict.reason is None
    assert verdict.text == article()
    assert found(verdict) == [("q-vignette", 60, True, "cut")]


def test_an_overlap_below_the_limit_is_not_cut(tmp_path: Path) -> None:
    text = article(words(VIGNETTE, 0, 20), SHORT)
    verdict = decontaminator(tmp_path, action="cut").examine("PMC1", "", text)
    assert verdict.text == article(words(VIGNETTE, 0, 20))


def test_reporting_changes_nothing(tmp_path: Path) -> None:
    verdict = decontaminator(tmp_path, action="report").examine("PMC1", "", article(VIGNETTE))
    assert (verdict.text, verdict.reason) == (article(VIGNETTE), None)
    assert found(verdict) == [("q-vignette", 60, True, "keep")]


@pytest.mark.parametrize("action", ["drop", "cut", "report"])
def test_the_articles_of_pubmedqas_test_questions_are_left_out_by_their_id(tmp_path: Path, action: str) -> None:
    exam = decontaminator(tmp_path, action=action)
    assert exam.examine("PMC1", "20000001", article()).reason == "test-article"
    assert exam.examine("PMC1", "20000002", article()).reason is None
    kept = decontaminator(tmp_path, action=action, test_articles=True)
    assert kept.examine("PMC1", "20000001", article()).reason is None


def test_an_abstract_that_is_a_questions_context_is_found_without_its_id(tmp_path: Path) -> None:
    abstract = QUESTIONS["pubmedqa-test"][0]["context"]
    verdict = decontaminator(tmp_path).examine("PMC1", "", article(abstract))
    assert [row["benchmark"] for row in verdict.matches] == ["pubmedqa-test"]
    assert verdict.reason == "contaminated"


@pytest.mark.parametrize("before", ["", "\U0001f9ec \U0001d465 ", "e\u0301te\u0301 \u4e2d\u6587, ", "\ud800 "])
def test_passages_are_quoted_as_the_article_has_them(tmp_path: Path, before: str) -> None:
    quoted = SHORT.replace(" ", "  ").rstrip("?")
    verdict = decontaminator(tmp_path).examine("PMC1", "", f"Head\n\n{before}({quoted})\n\n{FILLING[0]}")
    assert verdict.matches[0]["passage"] == quoted


def test_an_article_that_repeats_a_question_endlessly_takes_no_longer_than_its_length(tmp_path: Path) -> None:
    text = " ".join([VIGNETTE, PHRASE] * 3000)
    verdict = decontaminator(tmp_path).examine("PMC1", "", text)
    assert [one[0] for one in found(verdict)] == ["q-vignette", "q-phrase-0", "q-phrase-1", "q-phrase-2"]


def test_it_travels_to_other_processes(tmp_path: Path) -> None:
    exam = decontaminator(tmp_path)
    exam.examine("PMC1", "", article())
    copy = pickle.loads(pickle.dumps(exam))
    assert copy.examine("PMC1", "", article(VIGNETTE)) == exam.examine("PMC1", "", article(VIGNETTE))


def test_benchmarks_without_test_questions_find_nothing(tmp_path: Path) -> None:
    exam = Decontaminator.of(
        save_questions(tmp_path, {"medqa-train": QUESTIONS["medqa-train"]}), DecontaminateSettings()
    )
    assert exam.examine("PMC1", "20000001", article(VIGNETTE)) == Verdict(article(VIGNETTE))


def test_every_planted_question_of_many_is_found_and_no_clean_article_is_blamed(tmp_path: Path) -> None:
    draw = random.Random(0)
    questions = [{"id": f"q{number}", "question": prose(1000 + number, draw.randint(8, 150))} for number in range(300)]
    exam = Decontaminator.of(save_questions(tmp_path, {"medqa-test": questions}), DecontaminateSettings())
    for number, question in enumerate(questions):
        planted = prose(5000 + number, 200) + " " + question["question"] + " " + prose(7000 + number, 200)
        assert [one[0] for one in found(exam.examine("a", "", planted))] == [question["id"]]
        assert exam.examine("a", "", prose(9000 + number, 2000)).matches == []
