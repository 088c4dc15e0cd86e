"""The one schema of all benchmarks' questions, made from the form in which each was published.

The official forms: PubMedQA's ``ori_pqal.json``, MedMCQA's JSON lines (``cop``, the right option, counts from 1),
MedQA's ``phrases_no_exclude_<split>.jsonl`` (4 options), MMLU's CSV. A question is ``{id, question, context, options,
answer, subject}``; ``answer`` is a key of ``options``.
"""

from typing import Any

from components.common.errors import InputError

PUBMEDQA_ANSWERS = ("yes", "no", "maybe")
MEDMCQA_OPTIONS = (("A", "opa"), ("B", "opb"), ("C", "opc"), ("D", "opd"))

Question = dict[str, Any]


def pubmedqa_question(pmid: str, entry: Any) -> Question:
    """Normalise an entry of PubMedQA.

    Raises:
        InputError: It has not the official form.
    """
    where = f"PubMedQA question {pmid}"
    return _question(
        where,
        id=pmid,
        question=field(entry, "QUESTION", where),
        context="\n".join(field(entry, "CONTEXTS", where)),
        options={answer: answer for answer in PUBMEDQA_ANSWERS},
        answer=field(entry, "final_decision", where),
        subject="",
    )


def medmcqa_question(split: str, number: int, entry: Any) -> Question:
    """Normalise a line of MedMCQA.

    Raises:
        InputError: It has not the official form.
    """
    where = f"MedMCQA {split} line {number}"
    cop = field(entry, "cop", where)
    if cop == 0:
        raise InputError(f"{where}: cop counts from 0, as in the Hugging Face copy; the official file counts from 1.")
    if cop not in (1, 2, 3, 4):
        raise InputError(f"{where}: cop is {cop!r}, the official files have 1, 2, 3 or 4.")
    return _question(
        where,
        id=str(field(entry, "id", where)),
        question=field(entry, "question", where),
        context="",
        options={letter: str(field(entry, key, where)) for letter, key in MEDMCQA_OPTIONS},
        answer="ABCD"[cop - 1],
        subject=entry.get("subject_name") or "",
    )


def medqa_question(split: str, number: int, entry: Any) -> Question:
    """Normalise a line of MedQA; it has no ids, so its place in the file is one.

    Raises:
        InputError: It has not the official form.
    """
    where = f"MedQA {split} line {number}"
    return _question(
        where,
        id=f"medqa-{split}-{number}",
        question=field(entry, "question", where),
        context="",
        options=field(entry, "options", where),
        answer=field(entry, "answer_idx", where),
        # meta_info names the step of the exam, no subject, and not every copy has it.
        subject="",
    )


def mmlu_question(subject: str, split: str, number: int, row: Any) -> Question:
    """Normalise a row of MMLU: of its authors' CSV (question, four options, letter) or of the hub's copy.

    Raises:
        InputError: It has neither form.
    """
    where = f"MMLU {subject} {split} row {number}"
    if isinstance(row, list):
        if len(row) != 6:
            raise InputError(f"{where} has {len(row)} columns where the official file has 6; is it the official file?")
        question, *options, answer = row
    else:
        question, options, index = (field(row, key, where) for key in ("question", "choices", "answer"))
        if index not in (0, 1, 2, 3) or len(options) != 4:
            raise InputError(f"{where}: the answer is {index!r} of {len(options)}; the hub's copy has 0 to 3 of four.")
        answer = "ABCD"[index]
    return _question(
        where,
        id=f"mmlu-{subject}-{split}-{number}",
        question=question,
        context="",
        options=dict(zip("ABCD", options, strict=True)),
        answer=answer,
        subject=subject.replace("_", " "),
    )


def field(entry: Any, key: str, where: str) -> Any:
    """Return a field of an entry.

    Raises:
        InputError: It has none of that name.
    """
    if not isinstance(entry, dict) or key not in entry:
        raise InputError(f"{where} has no field {key!r}; is it the official file?")
    return entry[key]


def _question(where: str, **fields: Any) -> Question:
    if not isinstance(fields["options"], dict) or fields["answer"] not in fields["options"]:
        raise InputError(f"{where}: the answer {fields['answer']!r} is none of {', '.join(fields['options'])}.")
    if not str(fields["question"]).strip():
        raise InputError(f"{where}: the question is empty.")
    return fields
