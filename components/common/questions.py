"""The normalised questions that the download step wrote, one JSON object a line."""

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_bytes
from components.common.manifest import Manifest
from components.common.validation import first_problem


class Question(BaseModel):
    """One multiple-choice question."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    question: str
    context: str = ""
    options: dict[str, str]
    answer: str
    subject: str = ""

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> "Question":
        if self.answer not in self.options:
            raise ValueError(f"the answer {self.answer!r} is none of the options {', '.join(self.options)}")
        return self

    @property
    def hash(self) -> str:
        """Changes with anything that a model is shown or scored by."""
        return fingerprint(self.id, self.question, self.context, self.options, self.answer)


def read_questions(benchmarks: Manifest, benchmark: str, split: str, limit: int | None = None) -> list[Question]:
    """Read a benchmark's questions in their order.

    Args:
        benchmarks: Manifest of the benchmark files, one shard per benchmark and split.
        benchmark: Such as ``medqa``.
        split: ``test`` or ``train``.
        limit: Take only so many from the start.

    Raises:
        InputError: The file is not in the manifest, is not what the manifest says, or holds a line that is no
            question.
        StorageError: The file cannot be read.
    """
    shard = benchmarks.shard(f"{benchmark}-{split}")
    data = storage.read(shard.uri)
    if sha256_bytes(data) != shard.sha256:
        raise InputError(f"{shard.uri} is not the file that its manifest names; delete it and rerun the download.")
    lines = [line for line in data.splitlines() if line.strip()]
    questions = [_parse(line, shard.uri, number) for number, line in enumerate(lines[:limit], start=1)]
    if not questions:
        raise InputError(f"{shard.uri} holds no questions; rerun the download of {benchmark}.")
    repeated = [identifier for identifier, count in Counter(q.id for q in questions).items() if count > 1]
    if repeated:
        raise InputError(f"{shard.uri} holds question {repeated[0]} more than once; ids must be unique.")
    return questions


def majority_baseline(questions: Sequence[Question]) -> float:
    """Accuracy of always giving the most frequent answer."""
    return max(Counter(question.answer for question in questions).values()) / len(questions)


def _parse(line: bytes, uri: str, number: int) -> Question:
    try:
        return Question.model_validate_json(line)
    except ValidationError as error:
        problem = first_problem(error)
        raise InputError(f"Line {number} of {uri} is no question ({problem}); rerun the download.") from error
