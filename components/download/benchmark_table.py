"""Benchmarks beyond PubMedQA, MedMCQA and MedQA: where each is, how many questions it has, how its rows read.

To add one: an entry in ``TABLE``, with a function that makes a question of a row; and an entry in the catalogue of the
evaluate stage, which says how it is asked. A row is a dict (Parquet, JSON, JSON lines) or a list of texts (CSV).
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from components.common.errors import InputError
from components.download.benchmark_files import Split, json_rows
from components.download.benchmark_parquet import parquet_rows
from components.download.questions import Question, mmlu_question

Normalise = Callable[[str, int, Any], Question]
"""Makes a question of (split, row number, row)."""


@dataclass(frozen=True)
class Entry:
    """A benchmark; ``{split}`` in a file's name is ``test`` or whichever else is counted.

    Attributes:
        counts: The official number of questions of each split.
        hub: The data set on the hub, ``owner/name@commit``.
        hub_file: The file of a split there.
        files: Its names in a mirror folder: the first that is there is read.
        question: Makes a question of a row.
    """

    counts: Mapping[str, int]
    hub: str
    hub_file: str
    files: Sequence[str]
    question: Normalise


# MMLU: Hendrycks et al. 2021; the authors' files are the CSV of data.tar.
_MMLU = "cais/mmlu@c30699e8356da336a370243923dbaf21066bb9fe"


def _mmlu(subject: str, test: int) -> Entry:
    parquet = f"{subject}/{{split}}-00000-of-00001.parquet"
    return Entry(
        counts={"test": test, "dev": 5},
        hub=_MMLU,
        hub_file=parquet,
        files=(f"mmlu/{{split}}/{subject}_{{split}}.csv", f"mmlu/{parquet}"),
        question=partial(mmlu_question, subject),
    )


TABLE: Mapping[str, Entry] = {
    "mmlu_anatomy": _mmlu("anatomy", 135),
    "mmlu_clinical_knowledge": _mmlu("clinical_knowledge", 265),
    "mmlu_college_biology": _mmlu("college_biology", 144),
    "mmlu_college_medicine": _mmlu("college_medicine", 173),
    "mmlu_medical_genetics": _mmlu("medical_genetics", 100),
    "mmlu_professional_medicine": _mmlu("professional_medicine", 272),
}
_MMLU_MEDICAL = tuple(name for name in TABLE if name.startswith("mmlu_"))
# PubMedQA, MedMCQA and MedQA, the rest of MultiMedQA, are fetched in any case.
SUITES: Mapping[str, Sequence[str]] = {"mmlu_medical": _MMLU_MEDICAL, "multimedqa": _MMLU_MEDICAL}


def official_counts() -> dict[str, int]:
    """Return how many questions each split of the table has, such as ``mmlu_anatomy-test``."""
    return {f"{name}-{split}": count for name, entry in TABLE.items() for split, count in entry.counts.items()}


def named(names: Sequence[str]) -> dict[str, Entry]:
    """Return the entries of some benchmarks and suites.

    Raises:
        InputError: There is none of a name.
    """
    parts = [part for name in names for part in SUITES.get(name, (name,))]
    for part in parts:
        if part not in TABLE:
            raise InputError(f"There is no benchmark {part!r}; known are {', '.join([*SUITES, *TABLE])}.")
    return {part: TABLE[part] for part in parts}


def read_split(
    name: str, split: str, entry: Entry, data: bytes, place: str, inputs: dict[str, str], is_sample: bool = False
) -> Split:
    """Make a split of a file's content; its name says what it is.

    Args:
        name: Of the benchmark.
        split: Such as ``test``.
        entry: The benchmark's.
        data: The file.
        place: Where it lies, for messages.
        inputs: Its SHA-256, by name.
        is_sample: It is a part on purpose.
    """
    read = {"csv": _csv_rows, "parquet": parquet_rows}.get(place.rpartition(".")[2], json_rows)
    questions = (entry.question(split, number, row) for number, row in read(data, place))
    return Split(f"{name}-{split}", place, inputs, is_sample, questions)


def _csv_rows(data: bytes, place: str) -> Iterator[tuple[int, list[str]]]:
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{place} is no CSV ({error}); fetch the file again.") from error
    yield from enumerate((row for row in rows if row), start=1)
