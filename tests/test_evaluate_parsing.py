"""Which option a written answer names, and when it names none."""

import pytest

from components.common.questions import Question
from components.evaluate.parsing import parse_choice

DRUGS = {"A": "Aspirin", "B": "Ceftriaxone", "C": "Vitamin C", "D": "Aspirin and heparin"}
CHOICE = Question(id="1", question="Which?", options=DRUGS, answer="B")
WORDS = Question(id="2", question="Does it?", options={w: w for w in ("yes", "no", "maybe")}, answer="no")


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("###Answer: OPTION B IS CORRECT.", "B"),
        ("###Rationale: Aspirin is no antibiotic.\n###Answer: option b is correct", "B"),
        ("OPTION B IS CORRECT. Indeed, OPTION (B) IS CORRECT", "B"),
        ("OPTION A IS CORRECT ... OPTION B IS CORRECT", ""),
        ("OPTION E IS CORRECT. The answer is B", ""),
        ("B", "B"),
        ("B.", "B"),
        ("b)", "B"),
        ("(B)", "B"),
        ("B: Ceftriaxone", "B"),
        ("B Ceftriaxone", "B"),
        ("Option B, since it is an antibiotic", "B"),
        ("Option B because of the bacteria", "B"),
        ("The answer is B", "B"),
        ("The correct answer is: (B).", "B"),
        ("I think the answer is option C here.", "C"),
        ("Answer: Ceftriaxone", "B"),
        ("The answer is aspirin and heparin.", "D"),
        ("The answer is A. Later I say that the answer is B.", ""),
        ("The answer is A and B", ""),
        ("A, B", ""),
        ("A and B are right", ""),
        ("A or B", ""),
        ("Ceftriaxone", "B"),
        ("  ceftriaxone.\n", "B"),
        ("It should be treated with ceftriaxone for a week.", "B"),
        ("Give aspirin and heparin.", "D"),
        ("Give aspirin and heparin, or aspirin", ""),
        ("Aspirin or ceftriaxone", ""),
        ("Give vitamin C.", "C"),
        ("A patient like this needs rest.", ""),
        ("This is hepatitis B.", ""),
        ("I do not know.", ""),
        ("Aspirins", ""),
        ("E", ""),
        ("", ""),
        (" \n ", ""),
        ("A " * 5000, ""),
        ("The answer is " * 2000, ""),
    ],
)
def test_an_answer_to_a_choice(text: str, option: str) -> None:
    assert parse_choice(text, CHOICE) == option


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("###Answer: OPTION A IS CORRECT.", "yes"),
        ("OPTION C IS CORRECT", "maybe"),
        ("No, there was no difference.", "no"),
        ("yes", "yes"),
        ("The answer is maybe.", "maybe"),
        ("B.", "no"),
        ("B. no", "no"),
        ("There was no difference.", ""),
        ("Not at all", ""),
        ("Yesterday", ""),
    ],
)
def test_an_answer_of_yes_no_or_maybe(text: str, word: str) -> None:
    assert parse_choice(text, WORDS) == word


def test_options_of_one_text_or_of_none_decide_nothing() -> None:
    same = Question(id="3", question="?", options={"A": "rest", "B": "rest", "C": "", "D": "."}, answer="A")
    assert parse_choice("rest", same) == ""
    assert parse_choice("sleep.", same) == ""
    assert parse_choice("B", same) == "B"


def test_characters_of_a_pattern_in_options_are_plain_text() -> None:
    odd = Question(id="4", question="?", options={"A": "Na+ (2.5*)", "B": "K+ [high"}, answer="A")
    assert parse_choice("It is K+ [high", odd) == "B"
