"""What a run is fine-tuned on: a part of questions and instructions by hash, and none that any benchmark tests with."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from components.common.errors import InputError
from components.common.instruction_set import SolvedInstruction, read_instructions
from components.common.manifest import Manifest
from components.common.prompts import Example, authors_example, instruct_example, solved_example
from components.common.questions import Question, read_questions
from components.train.finetuning.test_questions import TestQuestions
from components.train.settings import INSTRUCT, FinetuneSettings

log = logging.getLogger(__name__)

TEST_QUESTION = "test_question"
INSTRUCTIONS = "instructions"


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        questions: Pairs of task and question: tasks by name, questions in the order of their file.
        chosen: How many of each task, and of ``instructions``.
        dropped: How many of each are, or hold, test questions of some benchmark.
        instructions: In the order of their file.
        in_instructions: Whether the questions are put into the instruction form.
    """

    questions: list[tuple[str, Question]]
    chosen: Counter[str]
    dropped: Counter[str]
    instructions: list[SolvedInstruction] = field(default_factory=list)
    in_instructions: bool = False

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.questions) + len(self.instructions)

    def examples(self) -> Iterator[Example]:
        """Yield everything that was chosen as text."""
        to_example = instruct_example if self.in_instructions else authors_example
        for task, question in self.questions:
            yield to_example(task, question)
        for solved in self.instructions:
            yield solved_example(solved.request, solved.output)


def select(benchmarks: Manifest, settings: FinetuneSettings) -> Selection:
    """Choose a part of the tasks' training questions and of the instructions, and leave out what is tested with.

    A question is a test question when its id, or its wording but for case and white space, is that of a question in
    the test split of any benchmark in the manifest; an instruction when its text holds such a question.

    Raises:
        InputError: A task, or the instruction set, is not in the manifest, or none is left of it.
        StorageError: A file cannot be read.
    """
    tests = TestQuestions(benchmarks)
    selection = Selection([], Counter(), Counter(), in_instructions=settings.objective == INSTRUCT)
    for task in sorted(settings.tasks):
        for question in _training_questions(benchmarks, task):
            if place(task, question.id) < settings.fraction and _counted(selection, task, tests.has(question)):
                selection.questions.append((task, question))
        _check_left(selection, task, settings)
    if settings.objective == INSTRUCT:
        for solved in read_instructions(benchmarks):
            if place(INSTRUCTIONS, solved.id) < settings.fraction and _counted(
                selection, INSTRUCTIONS, tests.within(f"{solved.instruction}\n{solved.input}\n{solved.output}")
            ):
                selection.instructions.append(solved)
        _check_left(selection, INSTRUCTIONS, settings)
    return selection


def place(task: str, identifier: str) -> float:
    """Map a question to a number in [0, 1), evenly spread: a smaller fraction is always a part of a larger one."""
    digest = hashlib.sha256(f"{task}:{identifier}".encode("utf-8", errors="surrogatepass")).digest()
    # 53 bits: more would round up to 1.0 as a float.
    return (int.from_bytes(digest[:8], "big") >> 11) / float(1 << 53)


def _counted(selection: Selection, name: str, is_tested: bool) -> bool:
    """Count one that lies in the fraction; return whether it stays."""
    (selection.dropped if is_tested else selection.chosen)[name] += 1
    return not is_tested


def _check_left(selection: Selection, name: str, settings: FinetuneSettings) -> None:
    dropped = selection.dropped[name]
    if not selection.chosen[name]:
        what = "instruction" if name == INSTRUCTIONS else f"training question of {name}"
        remedy = "give another set" if name == INSTRUCTIONS else "leave the task out"
        raise InputError(
            f"No {what} is left: {dropped} of the fraction {settings.fraction} are test questions; raise "
            f"finetune.fraction, or {remedy}."
        )
    if dropped:
        log.warning("%s: %d hold test questions of a benchmark and are left out", name, dropped)


def _training_questions(benchmarks: Manifest, task: str) -> list[Question]:
    if f"{task}-train" not in [shard.name for shard in benchmarks.shards]:
        raise InputError(
            f"The benchmarks {benchmarks.fingerprint} hold no training questions of {task}: put its training file "
            "beside the test file (download.benchmarks), or leave the task out of finetune.tasks."
        )
    return read_questions(benchmarks, task, "train")
