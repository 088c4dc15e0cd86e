"""The benchmarks as lm-evaluation-harness tasks.

Prompts, choices and metrics are read from the task files that lm-eval itself ships, so they are the ones whose numbers
the field quotes. Only the data is ours: each normalised question is put into the fields that lm-eval's task reads.

To add a benchmark: name it in ``settings.BenchmarkName`` and add its ``_Source`` here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from components.common.errors import InputError
from components.common.questions import Question

_LETTERS = ["A", "B", "C", "D"]


class LocalTask(ConfigurableTask):  # type: ignore[misc]
    """A task of lm-eval over questions that are already in memory: it never looks for a data set."""

    def __init__(self, config: dict[str, Any], dataset: datasets.DatasetDict) -> None:
        """Bind the task's configuration to its documents."""
        self._local = dataset
        super().__init__(config=config)

    def download(self, *_: Any, **__: Any) -> None:
        """Take the questions in memory where lm-eval would fetch a data set."""
        self.dataset = self._local


def build_task(
    benchmark: str,
    questions: Sequence[Question],
    examples: Sequence[Question] = (),
    num_fewshot: int = 0,
    seed: int = 0,
) -> LocalTask:
    """Make lm-eval's own task over our questions.

    Args:
        benchmark: Such as ``pubmedqa``.
        questions: What is asked.
        examples: Training questions that the few-shot examples are drawn from.
        num_fewshot: Examples before each question.
        seed: Of that draw.

    Raises:
        InputError: A question does not have the options of this benchmark, or there are too few examples.
    """
    source = _SOURCES[benchmark]
    if num_fewshot > len(examples):
        raise InputError(f"num_fewshot is {num_fewshot} but {benchmark} has {len(examples)} training questions.")
    splits = {"test": _documents(benchmark, source, questions)}
    if num_fewshot:
        splits["train"] = _documents(benchmark, source, examples)
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / source.task_file)
    config |= {
        "training_split": "train" if num_fewshot else None,
        "validation_split": None,
        "test_split": "test",
        "num_fewshot": num_fewshot,
    }
    task = LocalTask(config, datasets.DatasetDict(splits))
    task.set_fewshot_seed(seed)
    return task


@dataclass(frozen=True)
class _Source:
    """Where lm-eval keeps a task, which options it scores, and how its documents look."""

    task_file: str
    options: list[str]
    document: Callable[[Question], dict[str, Any]]


def _documents(benchmark: str, source: _Source, questions: Sequence[Question]) -> datasets.Dataset:
    for question in questions:
        if sorted(question.options) != sorted(source.options):
            raise InputError(
                f"Question {question.id} of {benchmark} has the options {', '.join(question.options)} "
                f"and not {', '.join(source.options)}; rerun the download."
            )
    return datasets.Dataset.from_list([source.document(question) for question in questions])


def _pubmedqa(question: Question) -> dict[str, Any]:
    # lm-eval joins the paragraphs of the abstract by a line break; ours are joined already.
    return {"QUESTION": question.question, "CONTEXTS": [question.context], "final_decision": question.answer}


def _medmcqa(question: Question) -> dict[str, Any]:
    texts = {f"op{letter.lower()}": question.options[letter] for letter in _LETTERS}
    return {"question": question.question, "cop": _LETTERS.index(question.answer), **texts}


def _medqa(question: Question) -> dict[str, Any]:
    texts = {f"ending{index}": question.options[letter] for index, letter in enumerate(_LETTERS)}
    return {"sent1": question.question, "label": _LETTERS.index(question.answer), **texts}


_SOURCES = {
    "pubmedqa": _Source("pubmedqa/pubmedqa.yaml", ["yes", "no", "maybe"], _pubmedqa),
    "medmcqa": _Source("medmcqa/medmcqa.yaml", _LETTERS, _medmcqa),
    "medqa": _Source("medqa/medqa.yaml", _LETTERS, _medqa),
}
