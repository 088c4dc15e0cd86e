"""PubMedQA, MedMCQA and MedQA-USMLE from their official files, normalised to one schema.

The official forms: PubMedQA's ``ori_pqal.json`` with ``test_ground_truth.json`` (which 500 are the test set), MedMCQA's
JSON lines (``cop``, the right option, counts from 1), MedQA's ``phrases_no_exclude_<split>.jsonl`` (4 options).
"""

import json
from collections.abc import Iterator
from typing import Any

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_bytes
from components.common.manifest import Manifest, Shard
from components.common.shards import finished_shard, write_shard
from components.download.settings import DownloadSettings

FORMAT_VERSION = 1
PUBMEDQA_ANSWERS = ("yes", "no", "maybe")
MEDMCQA_OPTIONS = (("A", "opa"), ("B", "opb"), ("C", "opc"), ("D", "opd"))

Question = dict[str, Any]


def download_benchmarks(settings: DownloadSettings, output_root: str) -> Manifest:
    """Read the official files and store one JSONL per benchmark and split.

    Args:
        settings: The recipe's download section; ``benchmarks`` is ``sample``, a folder or a prefix with the folders
            ``pubmedqa``, ``medmcqa`` and ``medqa``.
        output_root: The store's root URI.

    Returns:
        Manifest of kind ``benchmarks`` with the shards ``pubmedqa-test``, ``medmcqa-test`` (the official dev set),
        ``medqa-test`` and, where the files are there, the same with ``-train``. Each row is
        ``{id, question, context, options, answer, subject}``; ``answer`` is a key of ``options``.

    Raises:
        InputError: A file is missing, or a question has not the official form.
    """
    root = _root(settings.benchmarks)
    files = {storage.relative(entry.uri, root): entry.uri for entry in storage.list_files(root)}
    splits = {
        "pubmedqa-test": _pubmedqa(files, root, test=True),
        "pubmedqa-train": _pubmedqa(files, root, test=False),
        "medmcqa-test": _medmcqa(files, root, "dev"),
        "medmcqa-train": _medmcqa(files, root, "train"),
        "medqa-test": _medqa(files, root, "test"),
        "medqa-train": _medqa(files, root, "train"),
    }
    contents = {name: _to_jsonl(questions) for name, questions in splits.items() if questions}
    name = fingerprint("benchmarks", FORMAT_VERSION, {split: sha256_bytes(data) for split, data in contents.items()})
    prefix = storage.join(output_root, "benchmarks", name)
    return Manifest(
        kind="benchmarks",
        fingerprint=name,
        inputs={split: sha256_bytes(data) for split, data in contents.items()},
        settings={"benchmarks": settings.benchmarks},
        shards=[_store(prefix, split, data, len(splits[split])) for split, data in contents.items()],
        totals={f"questions_{split.replace('-', '_')}": len(splits[split]) for split in contents},
    )


def _root(place: str) -> str:
    if place == "sample":
        from components.download.sample import BENCHMARKS_DIR

        return storage.to_uri(BENCHMARKS_DIR)
    if not place:
        raise InputError(
            "download.benchmarks is not set; give the folder or s3:// prefix that holds pubmedqa/, medmcqa/ and medqa/."
        )
    return storage.to_uri(place)


def _store(prefix: str, split: str, data: bytes, rows: int) -> Shard:
    return finished_shard(prefix, split) or write_shard(prefix, split, {".jsonl": data}, rows)


def _pubmedqa(files: dict[str, str], root: str, test: bool) -> list[Question]:
    questions = _json(_file(files, root, "pubmedqa/ori_pqal.json"), dict)
    truth = _json(_file(files, root, "pubmedqa/test_ground_truth.json"), dict)
    missing = sorted(set(truth) - set(questions))
    if missing:
        raise InputError(f"PubMedQA: the test question {missing[0]} is not in ori_pqal.json; fetch both files again.")
    return [_pubmedqa_question(pmid, entry) for pmid, entry in questions.items() if (pmid in truth) == test]


def _pubmedqa_question(pmid: str, entry: Any) -> Question:
    where = f"PubMedQA question {pmid}"
    answer = _field(entry, "final_decision", where)
    return _question(
        where,
        id=pmid,
        question=_field(entry, "QUESTION", where),
        context="\n".join(_field(entry, "CONTEXTS", where)),
        options={answer: answer for answer in PUBMEDQA_ANSWERS},
        answer=answer,
        subject="",
    )


def _medmcqa(files: dict[str, str], root: str, split: str) -> list[Question]:
    entries = _split_lines(files, root, "medmcqa", (f"{split}.json", f"{split}.sample.json"), required=split == "dev")
    if entries and all(entry.get("cop") in range(4) for _, entry in entries) and any(e["cop"] == 0 for _, e in entries):
        raise InputError(
            f"MedMCQA {split}: cop counts from 0, as in the Hugging Face copy; the official file counts from 1."
        )
    questions = []
    for number, entry in entries:
        where = f"MedMCQA {split} line {number}"
        cop = _field(entry, "cop", where)
        if cop not in (1, 2, 3, 4):
            raise InputError(f"{where}: cop is {cop!r}, the official files have 1, 2, 3 or 4.")
        questions.append(
            _question(
                where,
                id=str(_field(entry, "id", where)),
                question=_field(entry, "question", where),
                context="",
                options={letter: str(_field(entry, key, where)) for letter, key in MEDMCQA_OPTIONS},
                answer="ABCD"[cop - 1],
                subject=entry.get("subject_name") or "",
            )
        )
    return questions


def _medqa(files: dict[str, str], root: str, split: str) -> list[Question]:
    names = (f"phrases_no_exclude_{split}.jsonl", f"{split}.jsonl", f"{split}.sample.jsonl")
    questions = []
    for number, entry in _split_lines(files, root, "medqa", names, required=split == "test"):
        where = f"MedQA {split} line {number}"
        questions.append(
            _question(
                where,
                id=f"medqa-{split}-{number}",
                question=_field(entry, "question", where),
                context="",
                options=_field(entry, "options", where),
                answer=_field(entry, "answer_idx", where),
                subject=entry.get("meta_info") or "",
            )
        )
    return questions


def _question(where: str, **fields: Any) -> Question:
    if fields["answer"] not in fields["options"]:
        raise InputError(f"{where}: the answer {fields['answer']!r} is none of {', '.join(fields['options'])}.")
    if not str(fields["question"]).strip():
        raise InputError(f"{where}: the question is empty.")
    return fields


def _split_lines(
    files: dict[str, str], root: str, folder: str, names: tuple[str, ...], required: bool
) -> list[tuple[int, dict[str, Any]]]:
    """Return (line number, record) of the first of the names that is there."""
    for name in names:
        if f"{folder}/{name}" in files:
            return list(_lines(files[f"{folder}/{name}"]))
    if required:
        raise InputError(f"{root} has no {folder}/{names[0]}; put the official file there (download.benchmarks).")
    return []


def _lines(uri: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(storage.read(uri).decode("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise InputError(f"{uri} line {number} is no JSON ({error}); fetch the file again.") from error


def _json(uri: str, kind: type) -> Any:
    try:
        value = json.loads(storage.read(uri))
    except ValueError as error:
        raise InputError(f"{uri} is no JSON ({error}); fetch the file again.") from error
    if not isinstance(value, kind):
        raise InputError(f"{uri} holds a {type(value).__name__} where the official file has a {kind.__name__}.")
    return value


def _file(files: dict[str, str], root: str, name: str) -> str:
    if name not in files:
        raise InputError(f"{root} has no {name}; put the official file there (download.benchmarks).")
    return files[name]


def _field(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise InputError(f"{where} has no field {key!r}; is it the official file?")
    return entry[key]


def _to_jsonl(questions: list[Question]) -> bytes:
    return "".join(json.dumps(question, ensure_ascii=False) + "\n" for question in questions).encode()
