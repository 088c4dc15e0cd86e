"""The forms in which a question is put to a model.

A format turns the configuration of lm-eval's own task into the one that is run: prompt, options, and whether options
are scored or an answer is generated. To add one: a function here and its name in ``settings.PromptFormat``. Every
document has the question itself in ``ASKED``, beside the fields that lm-eval's task reads.
"""

from collections.abc import Callable, Mapping
from typing import Any

from components.common.instructions import HEADINGS
from components.common.prompts import Example, authors_example, instruct_example
from components.common.questions import Question
from components.evaluate.catalogue import BENCHMARKS
from components.evaluate.parsing import parse_choice

ASKED = "asked"
WRITTEN = "instruct"
"""The form that has answers written, and not options scored."""
TaskConfig = dict[str, Any]
Document = Mapping[str, Any]
Format = Callable[[str, TaskConfig], TaskConfig]
"""Takes a benchmark's name and lm-eval's task configuration."""

# What of lm-eval's configuration says which questions and examples there are, and nothing of how they are put.
_DATA = {
    *("task", "dataset_path", "dataset_name", "training_split", "validation_split", "test_split"),
    *("fewshot_split", "fewshot_config", "num_fewshot", "metadata"),
}
_ACCURACY = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]


def _harness(_: str, config: TaskConfig) -> TaskConfig:
    """Ask as lm-evaluation-harness does, whose numbers the field quotes."""
    return config


def _authors(benchmark: str, config: TaskConfig) -> TaskConfig:
    """Ask in the form of the authors' fine-tuning, and score each option: a letter, or yes, no and maybe."""
    options = list(BENCHMARKS[benchmark].options)
    return {
        **_data(config),
        "output_type": "multiple_choice",
        "doc_to_text": _prompt(benchmark, authors_example),
        "doc_to_choice": options,
        "doc_to_target": lambda document: options.index(asked(document).answer),
    }


def _instruct(benchmark: str, config: TaskConfig) -> TaskConfig:
    """Ask in the instruction template, and let the model write its answer, always the likeliest token next."""
    return {
        **_data(config),
        "output_type": "generate_until",
        "doc_to_text": _prompt(benchmark, instruct_example),
        "doc_to_target": lambda document: instruct_example(benchmark, asked(document)).answer.strip(),
        "generation_kwargs": {"until": list(HEADINGS), "do_sample": False, "temperature": 0.0},
        "process_results": _process_results,
    }


FORMATS: Mapping[str, Format] = {"harness": _harness, "authors": _authors, WRITTEN: _instruct}


def asked(document: Document) -> Question:
    """Return the question that a document was made from."""
    return Question.model_validate(document[ASKED])


def _data(config: TaskConfig) -> TaskConfig:
    return {name: value for name, value in config.items() if name in _DATA} | {"metric_list": _ACCURACY}


def _prompt(benchmark: str, to_example: Callable[[str, Question], Example]) -> Callable[[Document], str]:
    return lambda document: to_example(benchmark, asked(document)).prompt


def _process_results(document: Document, results: list[str]) -> dict[str, float]:
    question = asked(document)
    return {"acc": float(parse_choice(results[0], question) == question.answer)}
