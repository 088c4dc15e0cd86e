"""The benchmarks' official files in a folder or a bucket, and the bundled ones."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import sha256_bytes
from components.download.questions import Question, medmcqa_question, medqa_question, pubmedqa_question

_MEDMCQA_SPLITS = {"medmcqa-test": "dev", "medmcqa-train": "train"}
_MEDQA_SPLITS = {"medqa-test": "test", "medqa-dev": "dev", "medqa-train": "train"}
_REQUIRED = ("medmcqa-test", "medqa-test")


@dataclass(frozen=True)
class Split:
    """The questions of one benchmark and split, as they are read.

    Attributes:
        name: Such as ``medqa-dev``.
        source: The file they come from, for messages.
        inputs: The SHA-256 of every file they were made from, by name.
        is_sample: The file calls itself a sample, so that the official count does not apply.
        questions: Read while they are iterated.
    """

    name: str
    source: str
    inputs: dict[str, str]
    is_sample: bool
    questions: Iterator[Question]


def splits_of_files(root: str) -> Iterator[Split]:
    """Yield the splits of a folder or prefix with the folders ``pubmedqa``, ``medmcqa`` and ``medqa``.

    A file with ``.sample.`` in its name, such as ``medmcqa/train.sample.json``, is taken where the whole one is not.

    Args:
        root: The URI of the folder.

    Raises:
        InputError: A file is missing or not of the official form.
    """
    files = files_below(root)
    yield from _pubmedqa(files, root)
    for name, split in _MEDQA_SPLITS.items():
        stems = (f"medqa/phrases_no_exclude_{split}", f"medqa/{split}")
        names = tuple(f"{stem}{sample}.jsonl" for sample in ("", ".sample") for stem in stems)
        yield from _lines_split(files, root, name, names, split, medqa_question)
    # Last, because its training set is eighteen times as large as the next.
    for name, split in _MEDMCQA_SPLITS.items():
        both = (f"medmcqa/{split}.json", f"medmcqa/{split}.sample.json")
        yield from _lines_split(files, root, name, both, split, medmcqa_question)


def files_below(root: str) -> dict[str, str]:
    """Return the URI of every file below a folder or prefix, by its name there."""
    return {storage.relative(entry.uri, root): entry.uri for entry in storage.list_files(root)}


def json_lines(data: bytes, source: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, record) of JSON lines; empty lines count but are left out.

    Raises:
        InputError: A line is no JSON.
    """
    # Not splitlines: a question may hold U+2028 or U+0085, which end a line for Python but not in JSON.
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{source} line {number} is no JSON ({error}); fetch the file again.") from error


def json_rows(data: bytes, source: str) -> Iterator[tuple[int, Any]]:
    """Yield (number, record) of a JSON list, or of JSON lines.

    Raises:
        InputError: It is neither.
    """
    if data.lstrip()[:1] != b"[":
        yield from json_lines(data, source)
        return
    try:
        yield from enumerate(json.loads(data), start=1)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is no JSON ({error}); fetch the file again.") from error


def _pubmedqa(files: dict[str, str], root: str) -> Iterator[Split]:
    name = _first(files, root, ("pubmedqa/ori_pqal.json", "pubmedqa/ori_pqal.sample.json"), required=True)
    truth_name = _first(files, root, ("pubmedqa/test_ground_truth.json",), required=True)
    data, truth_data = storage.read(files[name]), storage.read(files[truth_name])
    entries, truth = _json_object(data, files[name]), _json_object(truth_data, files[truth_name])
    missing = sorted(set(truth) - set(entries))
    if missing:
        raise InputError(f"PubMedQA: the test question {missing[0]} is not in ori_pqal.json; fetch both files again.")
    inputs = {name: sha256_bytes(data), truth_name: sha256_bytes(truth_data)}
    test = (pubmedqa_question(pmid, entry) for pmid, entry in entries.items() if pmid in truth)
    rest = (pubmedqa_question(pmid, entry) for pmid, entry in entries.items() if pmid not in truth)
    yield Split("pubmedqa-test", files[name], inputs, ".sample." in name, test)
    yield Split("pubmedqa-train", files[name], inputs, ".sample." in name, rest)


def _lines_split(
    files: dict[str, str],
    root: str,
    split_name: str,
    names: tuple[str, ...],
    split: str,
    normalise: Callable[[str, int, Any], Question],
) -> Iterator[Split]:
    name = _first(files, root, names, required=split_name in _REQUIRED)
    if not name:
        return
    data = storage.read(files[name])
    questions = (normalise(split, number, entry) for number, entry in json_lines(data, files[name]))
    yield Split(split_name, files[name], {name: sha256_bytes(data)}, ".sample." in name, questions)


def _first(files: dict[str, str], root: str, names: tuple[str, ...], required: bool) -> str:
    for name in names:
        if name in files:
            return name
    if required:
        raise InputError(f"{root} has no {names[0]}; put the official file there (download.benchmarks).")
    return ""


def _json_object(data: bytes, uri: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise InputError(f"{uri} is no JSON ({error}); fetch the file again.") from error
    if not isinstance(value, dict):
        raise InputError(f"{uri} holds a {type(value).__name__} where the official file has a dict.")
    return value
