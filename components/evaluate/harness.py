"""Answers a benchmark with lm-evaluation-harness and keeps what it said on every question."""

import json
import logging
import math
from collections.abc import Sequence
from typing import Any

from lm_eval.evaluator import evaluate as run_harness
from pydantic import BaseModel, ConfigDict

from components.common.errors import PipelineError
from components.common.fingerprint import sha256_bytes
from components.common.questions import Question
from components.evaluate.scorer import Scorer
from components.evaluate.tasks import build_task

log = logging.getLogger(__name__)


class Answer(BaseModel):
    """What a model answered to one question.

    Attributes:
        loglikelihoods: Log-probability (natural, summed over its tokens) of each option after the prompt.
        prediction: The option with the highest one.
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


def answer_questions(
    scorer: Scorer,
    benchmark: str,
    questions: Sequence[Question],
    examples: Sequence[Question] = (),
    num_fewshot: int = 0,
    seed: int = 0,
) -> list[Answer]:
    """Answer every question, in order.

    Args:
        scorer: The model.
        benchmark: Such as ``medqa``.
        questions: What is asked.
        examples: Training questions for few-shot prompts.
        num_fewshot: Examples before each question.
        seed: Draws them.

    Raises:
        InputError: The questions do not fit the benchmark.
        PipelineError: The model gives no finite probability.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns once per long prompt; we count them
    task = build_task(benchmark, questions, examples, num_fewshot, seed)
    name = str(task.config.task)
    results = run_harness(scorer, {"tasks": {name: task}, "groups": {}, "group_map": {}}, bootstrap_iters=0)
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    choices = task.doc_to_choice(task.dataset["test"][0])
    return [_answer(benchmark, question, sample, choices) for question, sample in zip(questions, samples, strict=True)]


def _answer(benchmark: str, question: Question, sample: dict[str, Any], choices: list[str]) -> Answer:
    scores = [float(response[0]) for response in sample["filtered_resps"]]
    if not all(math.isfinite(score) for score in scores):
        raise PipelineError(
            f"The model gives no finite probability for question {question.id} of {benchmark}; "
            "its weights are broken: look at the loss of its training."
        )
    prompt = [list(arguments) for arguments in sample["arguments"]]
    return Answer(
        id=question.id,
        question_hash=question.hash,
        prompt_hash=sha256_bytes(json.dumps(prompt).encode()),
        loglikelihoods=dict(zip(choices, scores, strict=True)),
        prediction=choices[scores.index(max(scores))],
        answer=question.answer,
        correct=sample["acc"] == 1.0,
    )
