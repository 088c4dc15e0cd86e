"""Questions as text: the authors' form, and the instruction form."""

import pytest
from finetune_helpers import sample_benchmarks

from components.common.instructions import HEADINGS, Instruction
from components.common.manifest import Manifest
from components.common.prompts import Example, authors_example, instruct_example, letters, solved_example
from components.common.questions import Question, read_questions

WORDS = {word: word for word in ("yes", "no", "maybe")}


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return sample_benchmarks(tmp_path_factory.mktemp("store"))


def authors_sentence(question: str, endings: list[str], label: int) -> str:
    """One MedQA question, written out as the authors' script does."""
    letters = {0: "A", 1: "B", 2: "C", 3: "D"}
    sentence = "You are a doctor. According to the question, make a choice. Q: " + question
    for number, ending in enumerate(endings):
        sentence = sentence + " " + letters[number] + ": " + ending
    return sentence + " The Answer is: " + letters[label]


def test_medqa_and_medmcqa_read_as_the_authors_wrote_them(benchmarks: Manifest) -> None:
    for task in ("medqa", "medmcqa"):
        for question in read_questions(benchmarks, task, "train"):
            example = authors_example(task, question)
            assert example.text == authors_sentence(
                question.question, list(question.options.values()), "ABCD".index(question.answer)
            )
            assert example.answer == f" {question.answer}"


def test_pubmedqa_has_its_abstract_before_the_question_and_answers_with_a_word() -> None:
    options = {word: word for word in ("yes", "no", "maybe")}
    question = Question(id="1", question="Does it help?", context="We looked.\nIt did.", options=options, answer="yes")
    assert authors_example("pubmedqa", question).text == (
        "You are a doctor. According to the context, answer the question with yes, no or maybe. "
        "Context: We looked.\nIt did. Q: Does it help? The Answer is: yes"
    )


@pytest.mark.parametrize(
    ("characters", "left"),
    [(1, "two\nthree"), (3, "two\nthree"), (4, "two\nthree"), (5, "three"), (9, ""), (13, ""), (99, "")],
)
def test_a_shortened_context_goes_on_with_a_whole_word(characters: int, left: str) -> None:
    assert Example("", "one two\nthree", "", "").without_start(characters).context == left


def test_the_instruction_form_is_the_authors_template_and_answers_by_a_letter() -> None:
    options = {"A": "Ampicillin", "B": "Ceftriaxone"}
    question = Question(id="1", question="Which is best?", options=options, answer="B")
    assert instruct_example("medqa", question).text == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request.\n\n### Instruction:\nYou're a doctor, kindly address the "
        "medical queries according to the patient's account. Answer with the best option directly.\n\n### Input:\n"
        "###Question: Which is best? ###Options: A. Ampicillin B. Ceftriaxone\n\n### Response: "
        "###Answer: OPTION B IS CORRECT."
    )


def test_pubmedqa_in_the_instruction_form_has_letters_for_its_words_and_a_context_that_can_be_shortened() -> None:
    question = Question(id="1", question="Does it help?", context="We looked. It did.", options=WORDS, answer="no")
    example = instruct_example("pubmedqa", question)
    assert example.context == "We looked. It did."
    assert example.before.endswith("### Input:\n###Context: ")
    assert example.after == " ###Question: Does it help? ###Options: A. yes B. no C. maybe\n\n### Response:"
    assert example.answer == " ###Answer: OPTION B IS CORRECT."
    assert letters(question) == {"A": "yes", "B": "no", "C": "maybe"}
    assert example.without_start(2).prompt == example.prompt.replace("We looked. ", "looked. ")


@pytest.mark.parametrize("context", ["", "###Context: {instruction} {0}", "### Response: ###Context: a"])
def test_whatever_a_context_holds_the_parts_make_the_whole(context: str) -> None:
    question = Question(id="1", question="Does {it} help?", context=context, options=WORDS, answer="no")
    example = instruct_example("pubmedqa", question)
    assert example.context == context
    assert example.prompt.count("Does {it} help?") == 1
    assert f"### Input:\n###Context: {context} ###Question:" in example.prompt


def test_no_answer_begins_like_a_heading_of_the_template(benchmarks: Manifest) -> None:
    for question in read_questions(benchmarks, "medqa", "train"):
        assert not any(heading in instruct_example("medqa", question).answer for heading in HEADINGS)


def test_a_solved_instruction_is_its_prompt_and_the_answer_after_a_space() -> None:
    request = Instruction("Name an organ.", "One only.")
    example = solved_example(request, "The heart.")
    assert (example.prompt, example.answer) == (request.prompt, " The heart.")
    assert example.text.endswith("### Input:\nOne only.\n\n### Response: The heart.")
