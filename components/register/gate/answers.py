"""The gate's checks of the benchmarks: none lost too much, one gained enough, all above the majority baseline."""

import math
from collections.abc import Mapping

from components.common.statistics import PairedDifference
from components.register.evidence.contamination import Contamination
from components.register.gate.pairs import Difference, Pair, counted_questions
from components.register.gate.verdict import Check, Numbers, moved, p_in_words, points, with_interval
from components.register.settings import RegisterSettings

_REFUSED = {
    "possible": "so that a loss of more than the {:.1f} points allowed is possible",
    "estimated": "more than the {:.1f} points that it may lose",
    "proven": "beyond doubt more than the {:.1f} points that it may lose",
}


def loss(pair: Pair, name: str, difference: Difference, p_adjusted: float | None, settings: RegisterSettings) -> Check:
    """Check that a benchmark has not lost more than its margin, on the questions that count."""
    title, paired = f"{pair.title(name)} against {pair.label}", difference.counted
    if paired is None:
        detail = f"all {difference.flagged} {pair.title(name)} questions are in the training data, so none is left"
        return Check(title, False, f"{detail} to compare with the {pair.label}", {"n": 0.0})
    change, margin = paired.interval, settings.margin_of(name)
    bound = {"possible": change.low, "estimated": change.value, "proven": change.high}[settings.refuse_loss]
    passed = bound >= -margin
    detail = (
        f"{pair.title(name)} {moved(change.value)} from {paired.reference:.1%} to {paired.candidate:.1%} against the "
        f"{pair.label} ({points(change.value)} points, {points(change.low)} to {points(change.high)})"
    )
    if difference.flagged:
        detail += f" without the {difference.flagged} questions in the training data"
    suspect = passed and change.value < -margin
    if not passed:
        detail += ", " + _REFUSED[settings.refuse_loss].format(100 * margin)
    elif suspect:
        detail += f", which {paired.questions:,} questions cannot tell from a loss that it may have"
    numbers = _numbers(paired, p_adjusted) | {
        "value": bound,
        "threshold": -margin,
        "flagged": float(difference.flagged),
        "change_with_flagged": difference.every.interval.value,
    }
    return Check(title, passed, detail, numbers, noteworthy=suspect)


def gain(label: str, found: Mapping[str, tuple[PairedDifference, float]], settings: RegisterSettings) -> Check:
    """Check that at least one benchmark gained: beyond chance, and by enough to matter.

    Args:
        label: ``base`` or ``champion``.
        found: For each benchmark, the difference on the questions that count and its p-value after Holm's correction.
        settings: The policy.
    """
    name, level = f"gain over {label}", 1 - settings.confidence
    if not found:
        return Check(name, False, f"no question is left to gain on the {label}")
    significant = {title: each for title, each in found.items() if each[1] <= level and each[0].interval.value > 0}
    enough = {title: each for title, each in significant.items() if each[0].interval.value >= settings.min_gain}
    best, (paired, p_adjusted) = _best(enough or significant or found)
    numbers = _numbers(paired, p_adjusted) | {"value": paired.interval.value, "threshold": settings.min_gain}
    numbers |= {"level": level}
    if enough:
        gains = " and ".join(_gained(label, title, *each) for title, each in enough.items())
        return Check(name, True, gains, numbers, noteworthy=True)
    if significant:
        least = f"but less than the {100 * settings.min_gain:.1f} points that count"
        return Check(name, False, f"{_gained(label, best, paired, p_adjusted)}, {least}", numbers)
    return Check(name, False, _nothing_gained(label, best, paired, p_adjusted), numbers)


def above_majority(pair: Pair, name: str, contamination: Contamination | None) -> Check:
    """Check that the candidate answers better than by always giving the most frequent answer."""
    title, benchmark = pair.title(name), pair.candidate.benchmarks[name]
    check = f"{title} above majority"
    counted = counted_questions(benchmark, name, contamination, pair.learned_questions)
    if not counted:
        return Check(check, False, f"no {title} question is left to set against the majority baseline", {"n": 0.0})
    accuracy, majority = float(benchmark.correct(counted).mean()), benchmark.majority
    numbers: Numbers = {"candidate": accuracy, "value": accuracy, "n": float(len(counted))}
    if not math.isfinite(majority):
        detail = f"the majority baseline of {title} is not known; evaluate the candidate again"
        return Check(check, False, detail, numbers)
    passed = accuracy > majority
    relation = "above" if passed else "not above"
    detail = f"{title} at {accuracy:.1%} is {relation} always giving the most frequent answer ({majority:.1%})"
    return Check(check, passed, detail, numbers | {"majority": majority, "threshold": majority})


def _numbers(paired: PairedDifference, p_adjusted: float | None) -> Numbers:
    numbers: Numbers = {
        "reference": paired.reference,
        "candidate": paired.candidate,
        "change": paired.interval.value,
        "n": float(paired.questions),
        "gained": float(paired.gained),
        "lost": float(paired.lost),
        "p_value": paired.p_value,
        "detectable": paired.detectable,
        "bootstrap_low": paired.bootstrap.low,
        "bootstrap_high": paired.bootstrap.high,
    }
    tested = {} if p_adjusted is None else {"p_adjusted": p_adjusted}
    return with_interval(numbers | tested, paired.interval)


def _best(found: Mapping[str, tuple[PairedDifference, float]]) -> tuple[str, tuple[PairedDifference, float]]:
    """Of the benchmarks that gained, return the one that is least likely chance; if none did, the least lost one."""
    gained = {title: each for title, each in found.items() if each[0].interval.value > 0}
    if gained:
        return min(gained.items(), key=lambda one: (one[1][1], -one[1][0].interval.value))
    return max(found.items(), key=lambda one: one[1][0].interval.value)


def _gained(label: str, title: str, paired: PairedDifference, p_adjusted: float) -> str:
    change = paired.interval
    return (
        f"{title} gained {100 * change.value:.1f} points on the {label} ({points(change.low)} to "
        f"{points(change.high)}, {p_in_words(p_adjusted)})"
    )


def _nothing_gained(label: str, best: str, paired: PairedDifference, p_adjusted: float) -> str:
    if paired.interval.value <= 0:
        return f"no benchmark gained on the {label}: the best is {best} with {points(paired.interval.value)} points"
    return (
        f"no benchmark gained significantly on the {label}: {best} comes closest with {points(paired.interval.value)} "
        f"points ({p_in_words(p_adjusted)}), where {100 * paired.detectable:.1f} would be found in 4 of 5 cases"
    )
