"""The benchmarks that can be answered: which task of lm-evaluation-harness each is, and how its documents look.

To add one: an entry here with the file of lm-eval's task, the options it scores and the fields it reads from a
question; and its source in the download stage's ``benchmark_table``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from components.common.questions import Question

_LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Source:
    """A benchmark as lm-eval asks it.

    Attributes:
        task_file: Where lm-eval keeps the task, below its folder of tasks.
        document: Puts a question into the fields that the task reads.
        options: What is scored, in the task's order.
        examples: The split that solved examples come from.
    """

    task_file: str
    document: Callable[[Question], dict[str, Any]]
    options: tuple[str, ...] = _LETTERS
    examples: str = "train"


def _pubmedqa(question: Question) -> dict[str, Any]:
    # lm-eval joins the paragraphs of the abstract by a line break; ours are joined already.
    return {"QUESTION": question.question, "CONTEXTS": [question.context], "final_decision": question.answer}


def _medmcqa(question: Question) -> dict[str, Any]:
    texts = {f"op{letter.lower()}": question.options[letter] for letter in _LETTERS}
    return {"question": question.question, "cop": _LETTERS.index(question.answer), **texts}


def _medqa(question: Question) -> dict[str, Any]:
    texts = {f"ending{index}": question.options[letter] for index, letter in enumerate(_LETTERS)}
    return {"sent1": question.question, "label": _LETTERS.index(question.answer), **texts}


def _mmlu(question: Question) -> dict[str, Any]:
    choices = [question.options[letter] for letter in _LETTERS]
    return {"question": question.question, "choices": choices, "answer": _LETTERS.index(question.answer)}


_MMLU_MEDICAL = tuple(
    f"mmlu_{subject}"
    for subject in (
        "anatomy",
        "clinical_knowledge",
        "college_biology",
        "college_medicine",
        "medical_genetics",
        "professional_medicine",
    )
)

BENCHMARKS: Mapping[str, Source] = {
    "pubmedqa": Source("pubmedqa/pubmedqa.yaml", _pubmedqa, ("yes", "no", "maybe")),
    "medmcqa": Source("medmcqa/medmcqa.yaml", _medmcqa),
    "medqa": Source("medqa/medqa.yaml", _medqa),
    # MMLU's examples are the five of its dev set, always in their order.
    **{name: Source(f"mmlu/default/{name}.yaml", _mmlu, examples="dev") for name in _MMLU_MEDICAL},
}

# Several benchmarks by one name; MultiMedQA's parts are those of lm-eval's group (Singhal et al. 2022).
SUITES: Mapping[str, tuple[str, ...]] = {
    "mmlu_medical": _MMLU_MEDICAL,
    "multimedqa": ("pubmedqa", "medmcqa", "medqa", *_MMLU_MEDICAL),
}
