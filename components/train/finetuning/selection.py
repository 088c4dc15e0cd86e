"""Which training questions a run is fine-tuned on: a part by hash, and none that any benchmark tests with."""

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass

from components.common.errors import InputError
from components.common.manifest import Manifest
from components.common.questions import Question, read_questions
from components.train.settings import FinetuneSettings

log = logging.getLogger(__name__)

TEST_QUESTION = "test_question"
_TEST = "-test"


@dataclass(frozen=True)
class Selection:
    """The questions that were chosen.

    Attributes:
        questions: Pairs of task and question: tasks by name, questions in the order of their file.
        chosen: How many of each task.
        dropped: How many of each task are test questions of some benchmark.
    """

    questions: list[tuple[str, Question]]
    chosen: Counter[str]
    dropped: Counter[str]


def select_questions(benchmarks: Manifest, settings: FinetuneSettings) -> Selection:
    """Choose a part of the tasks' training questions and leave out what is tested with.

    A question is a test question when its id, or its wording but for case and white space, is that of a question in
    the test split of any benchmark in the manifest.

    Raises:
        InputError: A task has no training questions in the manifest, or none is left of it.
        StorageError: A file cannot be read.
    """
    ids, wordings = _test_questions(benchmarks)
    questions: list[tuple[str, Question]] = []
    chosen: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for task in sorted(settings.tasks):
        for question in _training_questions(benchmarks, task):
            if place(task, question.id) >= settings.fraction:
                continue
            if question.id in ids or _wording(question) in wordings:
                dropped[task] += 1
                continue
            chosen[task] += 1
            questions.append((task, question))
        if not chosen[task]:
            raise InputError(
                f"No training question of {task} is left: {dropped[task]} of the fraction {settings.fraction} are test "
                "questions; raise finetune.fraction, or leave the task out."
            )
        if dropped[task]:
            log.warning("%s: %d training questions are test questions and left out", task, dropped[task])
    return Selection(questions, chosen, dropped)


def place(task: str, identifier: str) -> float:
    """Map a question to a number in [0, 1), evenly spread: a smaller fraction is always a part of a larger one."""
    digest = hashlib.sha256(f"{task}:{identifier}".encode("utf-8", errors="surrogatepass")).digest()
    # 53 bits: more would round up to 1.0 as a float.
    return (int.from_bytes(digest[:8], "big") >> 11) / float(1 << 53)


def _training_questions(benchmarks: Manifest, task: str) -> list[Question]:
    if f"{task}-train" not in [shard.name for shard in benchmarks.shards]:
        raise InputError(
            f"The benchmarks {benchmarks.fingerprint} hold no training questions of {task}: put its training file "
            "beside the test file (download.benchmarks), or leave the task out of finetune.tasks."
        )
    return read_questions(benchmarks, task, "train")


def _test_questions(benchmarks: Manifest) -> tuple[set[str], set[str]]:
    names = [shard.name.removesuffix(_TEST) for shard in benchmarks.shards if shard.name.endswith(_TEST)]
    questions = [question for name in names for question in read_questions(benchmarks, name, "test")]
    return {question.id for question in questions}, {_wording(question) for question in questions}


def _wording(question: Question) -> str:
    return " ".join(question.question.casefold().split())
