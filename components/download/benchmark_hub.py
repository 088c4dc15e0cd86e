"""The benchmarks' copies on the Hugging Face hub, turned back into the official forms.

The copies differ in form only: PubMedQA (``qiaojin/PubMedQA``) is Parquet without a mark of the test set, MedMCQA
(``openlifescienceai/medmcqa``) is Parquet whose ``cop`` counts from 0, MedQA (``GBaker/MedQA-USMLE-4-options-hf``) is
JSON lines with the question in ``sent1``, the options in ``ending0`` to ``ending3`` and the right one in ``label``.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from components.common.errors import InputError
from components.common.pmc.settings import TransportSettings
from components.download.benchmark_files import Split, json_lines
from components.download.benchmark_parquet import parquet_rows
from components.download.benchmark_table import named, read_split
from components.download.hub import HubRepo
from components.download.hub_pin import open_pinned, pinned
from components.download.official import pubmedqa_test_ids
from components.download.questions import Question, field, medmcqa_question, medqa_question, pubmedqa_question
from components.download.remote_file import fetch
from components.download.settings import HubSettings

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

Rows = Iterator[tuple[int, Any]]


def splits_of_hub(settings: HubSettings, transport: TransportSettings, more: Sequence[str] = ()) -> Iterator[Split]:
    """Yield the splits of the data sets that the settings pin, and of more benchmarks (``benchmark_table``).

    Raises:
        InputError: A data set is not pinned to a commit, cannot be fetched, or has another form.
    """
    pins = {name: pinned(getattr(settings, name), f"download.hub.{name}") for name in ("pubmedqa", "medmcqa", "medqa")}
    repos = {name: open_pinned(*pin, transport) for name, pin in pins.items()}
    yield from _pubmedqa(repos["pubmedqa"])
    for name, (split, file) in _MEDQA_FILES.items():
        yield _split(repos["medqa"], file, name, json_lines, _medqa(split))
    for name, (split, file) in _MEDMCQA_FILES.items():
        yield _split(repos["medmcqa"], file, name, parquet_rows, _medmcqa(split))
    yield from _more(more, transport)


def _more(names: Sequence[str], transport: TransportSettings) -> Iterator[Split]:
    repos: dict[str, HubRepo] = {}
    for name, entry in named(names).items():
        if entry.hub not in repos:
            repos[entry.hub] = open_pinned(*pinned(entry.hub, name), transport)
        for split in entry.counts:
            file = repos[entry.hub].file(entry.hub_file.format(split=split))
            data, sha256 = fetch(file)
            yield read_split(name, split, entry, data, file.place, {file.place: sha256})


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
    questions = [_pubmedqa_row(number, row) for number, row in parquet_rows(data, file.place)]
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
