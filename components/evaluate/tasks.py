"""The benchmarks as lm-evaluation-harness tasks.

Prompts, choices and metrics are read from the task files that lm-eval itself ships, so they are the ones whose numbers
the field quotes. Only the data is ours: each normalised question is put into the fields that lm-eval's task reads.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import lm_eval.tasks
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from components.common.errors import InputError
from components.common.questions import Question
from components.evaluate.catalogue import BENCHMARKS, Source
from components.evaluate.formats import ASKED, FORMATS

ANSWER_TOKENS = 1000  # as many as the authors let their model write


@dataclass(frozen=True)
class Shots:
    """The solved examples before each question.

    Attributes:
        count: How many; 0 is zero-shot.
        common: The same ones for all questions; else drawn anew for each, unless the task itself fixes them.
        seed: Draws them.
    """

    count: int = 0
    common: bool = False
    seed: int = 0


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
    shots: Shots = Shots(),
    prompt_format: str = "harness",
    answer_tokens: int = ANSWER_TOKENS,
) -> LocalTask:
    """Make lm-eval's own task over our questions.

    Args:
        benchmark: Such as ``pubmedqa``.
        questions: What is asked.
        examples: Training questions that the solved examples are drawn from.
        shots: How many of them, and how they are drawn.
        prompt_format: The form of the questions, a name of ``formats.FORMATS``.
        answer_tokens: How long an answer may be where the form has one generated.

    Raises:
        InputError: A question does not have the options of this benchmark, or there are too few examples.
    """
    source = BENCHMARKS[benchmark]
    if shots.count > len(examples):
        raise InputError(
            f"num_fewshot is {shots.count} but {benchmark} has {len(examples)} questions to take examples from."
        )
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / source.task_file)
    config |= {"training_split": None, "validation_split": None, "test_split": "test", "num_fewshot": shots.count}
    config["fewshot_split"] = "examples" if shots.count else None
    fixed = config.get("fewshot_config", {}).get("sampler") == "first_n"
    if shots.count and shots.common and not fixed:
        config["fewshot_config"] = {**config.get("fewshot_config", {}), "sampler": "first_n"}
        examples = random.Random(shots.seed).sample(examples, shots.count)
    splits = {"test": _documents(benchmark, source, questions)}
    if shots.count:
        splits["examples"] = _documents(benchmark, source, examples)
    config = FORMATS[prompt_format](benchmark, config)
    if "generation_kwargs" in config:
        config["generation_kwargs"] = {**config["generation_kwargs"], "max_gen_toks": answer_tokens}
    task = LocalTask(config, datasets.DatasetDict(splits))
    task.set_fewshot_seed(shots.seed)
    return task


def _documents(benchmark: str, source: Source, questions: Sequence[Question]) -> datasets.Dataset:
    for question in questions:
        if sorted(question.options) != sorted(source.options):
            raise InputError(
                f"Question {question.id} of {benchmark} has the options {', '.join(question.options)} "
                f"and not {', '.join(source.options)}; rerun the download."
            )
    documents = [{**source.document(question), ASKED: question.model_dump()} for question in questions]
    return datasets.Dataset.from_list(documents)
