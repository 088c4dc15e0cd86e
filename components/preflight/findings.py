"""What the preflight found: of each subject its state, and what to do."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from components.common.errors import PipelineError

State = Literal["ok", "warning", "failed", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What it is, such as `Secret s3-credentials`.
        state: `ok`; `warning`: it may go wrong, or is better done otherwise; `failed`: the run cannot succeed like
            this; `unknown`: it cannot be seen from here.
        found: What was seen, in a sentence.
        remedy: What to do, in a sentence; empty where all is well.
    """

    subject: str
    state: State
    found: str
    remedy: str = ""


def ok(subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(subject, "ok", found)


def warning(subject: str, found: str, remedy: str) -> Finding:
    """It may go wrong."""
    return Finding(subject, "warning", found, remedy)


def failed(subject: str, found: str, remedy: str) -> Finding:
    """The run cannot succeed like this."""
    return Finding(subject, "failed", found, remedy)


def unknown(subject: str, found: str, remedy: str) -> Finding:
    """It cannot be seen from here; the remedy says how a person sees it."""
    return Finding(subject, "unknown", found, remedy)


def counted(findings: Sequence[Finding]) -> dict[str, int]:
    """How many findings are in each state, those of all four."""
    found = Counter(each.state for each in findings)
    return {state: found[state] for state in get_args(State)}


def require(findings: Sequence[Finding]) -> None:
    """Let nothing through that has failed.

    Raises:
        PipelineError: Names every failed finding with its remedy.
    """
    wrong = [each for each in findings if each.state == "failed"]
    if not wrong:
        return
    listed = " ".join(f"({n}) {each.subject}: {each.found} {each.remedy}" for n, each in enumerate(wrong, start=1))
    things = "1 thing stands" if len(wrong) == 1 else f"{len(wrong)} things stand"
    raise PipelineError(f"{things} in the way of this run. {listed}")
