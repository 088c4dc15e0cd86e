"""What the gate says: its checks and the sentence for a person."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from components.common.statistics import Interval

Numbers = dict[str, float]


@dataclass(frozen=True)
class Check:
    """One question that the gate asked.

    Attributes:
        name: Such as ``medqa against base``.
        passed: The answer.
        detail: The finding in words: a clause without a full stop.
        numbers: What it rests on: ``value`` against ``threshold``, ``low`` and ``high`` of the interval, ``p_value``,
            ``p_adjusted``, ``n``, and more by the kind of check. A number that does not exist is left out.
        noteworthy: Whether the sentence for a person names it although it passed.
    """

    name: str
    passed: bool
    detail: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    noteworthy: bool = False


@dataclass(frozen=True)
class Verdict:
    """The outcome: ``reason`` is one sentence for a person."""

    passed: bool
    reason: str
    checks: Sequence[Check]


def conclude(checks: list[Check], ending: str = "no benchmark lost more than it may") -> Verdict:
    """Turn checks into a verdict: all must pass, and there must be some.

    Args:
        checks: The gate's.
        ending: What a passing verdict says last of what it rests on.
    """
    failed = [check.detail for check in checks if not check.passed]
    if failed or not checks:
        return Verdict(False, f"Not promoted: {'; '.join(failed) or 'nothing was compared'}.", checks)
    found = [check.detail for check in checks if check.noteworthy]
    return Verdict(True, f"Promoted: {'; '.join([*found, ending])}.", checks)


def with_interval(numbers: Numbers, interval: Interval | None) -> Numbers:
    """Add the ends of an interval, as ``low`` and ``high`` and by the names that the report reads."""
    if interval is None:
        return numbers
    low, high = interval.low, interval.high
    return numbers | {"low": low, "high": high, "change_low": low, "change_high": high}


def moved(change: float) -> str:
    """Return the verb for a change."""
    if change == 0:
        return "stayed"
    return "rose" if change > 0 else "fell"


def points(share: float) -> str:
    """Return a change of a share in percentage points, such as ``+1.2``."""
    return f"{100 * share:+.1f}"


def p_in_words(p_adjusted: float | None) -> str:
    """Return an adjusted p-value as a sentence shows it."""
    if p_adjusted is None:
        return "not tested"
    return "p < 0.001 after Holm" if p_adjusted < 0.001 else f"p = {p_adjusted:.2g} after Holm"
