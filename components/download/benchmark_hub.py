"""The benchmarks' copies on the Hugging Face hub, turned back into the official forms.

The copies differ in form only: PubMedQA (``qiaojin/PubMedQA``) is Parquet without a mark of the test set, MedMCQA
(``openlifescienceai/medmcqa``) is Parquet whose ``cop`` counts from 0, MedQA (``GBaker/MedQA-USMLE-4-options-hf``) is
JSON lines with the question in ``sent1``, the options in ``ending0`` to ``ending3`` and the right one in ``label``.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.common.errors import InputError
from components.common.pmc.settings import TransportSettings
from components.download.benchmark_files import Split, json_lines
from components.download.hub import HubRepo, open_repo
from components.download.official import pubmedqa_test_ids
from components.download.questions import Question, field, medmcqa_question, medqa_question, pubmedqa_question
from components.download.remote_file import fetch
from components.download.settings import HubSettings

_PIN = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")
_PUBMEDQA_FILE = "pqa_labeled/train-00000-of-00001.parquet"
_MEDMCQA_FILES = {
    "medmcqa-test": ("dev", "data/validation-00000-of-00001.parquet"),
    "medmcqa-train": ("train", "data/train-00000-of-00001.parquet"),
}
_MEDQA_FILES = {
    "medqa-test": ("test", "test.json"),
    "medqa-dev": ("dev", "dev.json"),
    "medqa-train": ("train", "train.json"),
}
_ROWS_AT_A_TIME = 4096

Rows = Iterator[tuple[int, Any]]


def splits_of_hub(settings: HubSettings, transport: TransportSettings) -> Iterator[Split]:
    """Yield the splits of the data sets that the settings pin.

    Raises:
        InputError: A data set is not pinned to a commit, cannot be fetched, or has another form.
    """
    pins = {name: _pin(getattr(settings, name), f"download.hub.{name}") for name in ("pubmedqa", "medmcqa", "medqa")}
    repos = {name: _open(*pin, transport) for name, pin in pins.items()}
    yield from _pubmedqa(repos["pubmedqa"])
    for name, (split, file) in _MEDQA_FILES.items():
        yield _split(repos["medqa"], file, name, json_lines, _medqa(split))
    for name, (split, file) in _MEDMCQA_FILES.items():
        yield _split(repos["medmcqa"], file, name, _parquet_rows, _medmcqa(split))


def _pin(text: str, setting: str) -> tuple[str, str]:
    match = _PIN.fullmatch(text)
    if match is None:
        raise InputError(
            f"{setting} is {text!r}, which can change from day to day; give owner/name@commit, "
            "with the 40 hexadecimal digits of a commit."
        )
    return match["name"], match["commit"]


def _open(name: str, commit: str, transport: TransportSettings) -> HubRepo:
    repo = open_repo(name, commit, "dataset", transport)
    if repo.commit != commit:
        raise InputError(f"The hub answers with commit {repo.commit} of {name} for {commit}; check HF_ENDPOINT.")
    return repo


def _split(
    repo: HubRepo,
    file_name: str,
    split_name: str,
    read: Callable[[bytes, str], Rows],
    normalise: Callable[[int, Any], Question],
) -> Split:
    file = repo.file(file_name)
    data, sha256 = fetch(file)
    questions = (normalise(number, row) for number, row in read(data, file.place))
    return Split(split_name, file.place, {file.place: sha256}, False, questions)


def _pubmedqa(repo: HubRepo) -> Iterator[Split]:
    file = repo.file(_PUBMEDQA_FILE)
    data, sha256 = fetch(file)
    questions = [_pubmedqa_row(number, row) for number, row in _parquet_rows(data, file.place)]
    test_ids, inputs = pubmedqa_test_ids(), {file.place: sha256}
    yield Split("pubmedqa-test", file.place, inputs, False, (q for q in questions if q["id"] in test_ids))
    yield Split("pubmedqa-train", file.place, inputs, False, (q for q in questions if q["id"] not in test_ids))


def _pubmedqa_row(number: int, row: Any) -> Question:
    where = f"PubMedQA row {number}"
    entry = {
        "QUESTION": field(row, "question", where),
        "CONTEXTS": field(field(row, "context", where), "contexts", where),
        "final_decision": field(row, "final_decision", where),
    }
    return pubmedqa_question(str(field(row, "pubid", where)), entry)


def _medmcqa(split: str) -> Callable[[int, Any], Question]:
    def normalise(number: int, row: Any) -> Question:
        cop = field(row, "cop", f"MedMCQA {split} row {number}")
        if cop not in (0, 1, 2, 3):
            raise InputError(f"MedMCQA {split} row {number}: cop is {cop!r}, the hub's copy has 0, 1, 2 or 3.")
        return medmcqa_question(split, number, row | {"cop": cop + 1})

    return normalise


def _medqa(split: str) -> Callable[[int, Any], Question]:
    def normalise(number: int, row: Any) -> Question:
        where = f"MedQA {split} line {number}"
        label = field(row, "label", where)
        if label not in (0, 1, 2, 3) or row.get("sent2"):
            raise InputError(f"{where}: label is {label!r} and sent2 {row.get('sent2')!r}; due are 0 to 3 and nothing.")
        options = {letter: field(row, f"ending{index}", where) for index, letter in enumerate("ABCD")}
        entry = {"question": field(row, "sent1", where), "options": options, "answer_idx": "ABCD"[label]}
        return medqa_question(split, number, entry)

    return normalise


def _parquet_rows(data: bytes, place: str) -> Rows:
    try:
        number = 0
        for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(_ROWS_AT_A_TIME):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{place} is no Parquet file ({str(error).splitlines()[0]}); check the pin.") from error
