"""Answers a benchmark with lm-evaluation-harness and keeps what it said on every question."""

import json
import logging
import math
from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate as run_harness
from pydantic import BaseModel, ConfigDict

from components.common.errors import PipelineError
from components.common.fingerprint import sha256_bytes
from components.common.questions import Question
from components.evaluate.parsing import parse_choice
from components.evaluate.tasks import ANSWER_TOKENS, Shots, build_task

log = logging.getLogger(__name__)


class Answer(BaseModel):
    """What a model answered to one question.

    Attributes:
        loglikelihoods: Log-probability (natural, summed over its tokens) of each option after the prompt; none where
            the model wrote its answer.
        prediction: The option with the highest one, or the one that the written answer names; empty where it names
            none, which counts as wrong.
        generated: What the model wrote, where it did.
        correct: lm-eval's ``acc`` for this question.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    question_hash: str
    prompt_hash: str
    loglikelihoods: dict[str, float]
    prediction: str
    answer: str
    correct: bool
    generated: str | None = None


def answer_questions(
    lm: LM,
    benchmark: str,
    questions: Sequence[Question],
    examples: Sequence[Question] = (),
    shots: Shots = Shots(),  # noqa: B008 - it is frozen
    prompt_format: str = "harness",
    answer_tokens: int = ANSWER_TOKENS,
) -> list[Answer]:
    """Answer every question, in order.

    Args:
        lm: The model, as lm-eval knows models.
        benchmark: Such as ``medqa``.
        questions: What is asked.
        examples: Training questions for few-shot prompts.
        shots: The solved examples before each question.
        prompt_format: The form of the questions, a name of ``formats.FORMATS``.
        answer_tokens: How long a written answer may be.

    Raises:
        InputError: The questions do not fit the benchmark.
        PipelineError: The model gives no finite probability.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns once per long prompt; we count them
    task = build_task(benchmark, questions, examples, shots, prompt_format, answer_tokens)
    name = str(task.config.task)
    results = run_harness(lm, {"tasks": {name: task}, "groups": {}, "group_map": {}}, bootstrap_iters=0)
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    if task.OUTPUT_TYPE == "generate_until":
        return [_written_answer(question, sample) for question, sample in zip(questions, samples, strict=True)]
    choices = task.doc_to_choice(task.dataset["test"][0])
    return [_answer(benchmark, question, sample, choices) for question, sample in zip(questions, samples, strict=True)]


def _answer(benchmark: str, question: Question, sample: dict[str, Any], choices: list[str]) -> Answer:
    scores = [float(response[0]) for response in sample["filtered_resps"]]
    if not all(math.isfinite(score) for score in scores):
        raise PipelineError(
            f"The model gives no finite probability for question {question.id} of {benchmark}; "
            "its weights are broken: look at the loss of its training."
        )
    return Answer(
        id=question.id,
        question_hash=question.hash,
        prompt_hash=_prompt_hash(sample),
        loglikelihoods=dict(zip(choices, scores, strict=True)),
        prediction=choices[scores.index(max(scores))],
        answer=question.answer,
        correct=sample["acc"] == 1.0,
    )


def _written_answer(question: Question, sample: dict[str, Any]) -> Answer:
    text = str(sample["filtered_resps"][0])
    return Answer(
        id=question.id,
        question_hash=question.hash,
        prompt_hash=_prompt_hash(sample),
        loglikelihoods={},
        prediction=parse_choice(text, question),
        answer=question.answer,
        correct=sample["acc"] == 1.0,
        generated=text,
    )


def _prompt_hash(sample: dict[str, Any]) -> str:
    return sha256_bytes(json.dumps([list(arguments) for arguments in sample["arguments"]]).encode())
