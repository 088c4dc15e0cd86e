"""The gate: may this model become champion?

It compares on paired results only, and fails closed: what cannot be compared is refused, with the reason.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from components.common.statistics import paired_difference, weighted_mean
from components.register.results import Benchmark, Evaluation
from components.register.settings import RegisterSettings


@dataclass(frozen=True)
class Check:
    """One question that the gate asked.

    Attributes:
        name: Such as ``medqa against base``.
        passed: The answer.
        detail: The finding in words: a clause without a full stop.
        numbers: What it rests on.
    """

    name: str
    passed: bool
    detail: str
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The outcome: ``reason`` is one sentence for a person."""

    passed: bool
    reason: str
    checks: list[Check]


def decide(base: Evaluation, candidate: Evaluation, champion: Evaluation | None, settings: RegisterSettings) -> Verdict:
    """Compare a candidate with its base and with the champion.

    The held-out perplexity must be lower by more than the required share, and on no benchmark may the whole confidence
    interval of the paired difference lie below zero.

    Args:
        base: The model that training started from.
        candidate: The model in question.
        champion: The model that holds the place now; None when there is none, or it is the candidate itself.
        settings: Thresholds.
    """
    checks = [*_comparison("base", base, candidate, settings)]
    if champion is not None and settings.compare_with_champion:
        checks += _comparison("champion", champion, candidate, settings)
    if settings.require_above_majority:
        checks += [_above_majority(name, benchmark) for name, benchmark in candidate.benchmarks.items()]
    return conclude(checks)


def conclude(checks: list[Check]) -> Verdict:
    """Turn checks into a verdict: all must pass, and there must be some."""
    failed = [check.detail for check in checks if not check.passed]
    if failed or not checks:
        return Verdict(False, f"Not promoted: {'; '.join(failed) or 'nothing was compared'}.", checks)
    gains = [check.detail for check in checks if check.name.startswith("perplexity")]
    return Verdict(True, f"Promoted: {', '.join(gains)}, and no benchmark lost beyond its confidence interval.", checks)


def _comparison(label: str, reference: Evaluation, candidate: Evaluation, settings: RegisterSettings) -> list[Check]:
    obstacles = list(_obstacles(label, reference, candidate))
    other_articles = not _same_articles(reference, candidate)
    benchmarks_only = label == "champion" and settings.champion_on_other_articles == "benchmarks_only"
    if other_articles and not benchmarks_only:
        obstacles.append(
            f"the perplexity of the {label} was measured on other articles or windows; evaluate it again on this corpus"
        )
    if obstacles:
        return [Check(f"comparable with {label}", False, "; ".join(obstacles))]
    checks = [Check(f"comparable with {label}", True, f"asked the same as the {label}")]
    if not other_articles:
        checks.append(_perplexity(label, reference, candidate, settings))
    names = sorted(candidate.benchmarks)
    checks += [_benchmark(label, n, reference.benchmarks[n], candidate.benchmarks[n], settings) for n in names]
    return checks


def _obstacles(label: str, reference: Evaluation, candidate: Evaluation) -> Iterator[str]:
    """Say what makes two evaluations incomparable."""
    if not reference.benchmarks and not candidate.benchmarks:
        yield f"neither the {label} nor the candidate has a benchmark result"
    for name in sorted(reference.benchmarks.keys() - candidate.benchmarks.keys()):
        yield f"the candidate has no result for {name}"
    for name in sorted(candidate.benchmarks.keys() - reference.benchmarks.keys()):
        yield f"the {label} has no result for {name}"
    for name in sorted(reference.benchmarks.keys() & candidate.benchmarks.keys()):
        first, second = reference.benchmarks[name].questions, candidate.benchmarks[name].questions
        if not first or first.keys() != second.keys():
            yield f"the {label} and the candidate answered other sets of {name} questions ({len(first)}, {len(second)})"
        elif changed := [i for i in first if first[i].question_hash != second[i].question_hash]:
            yield f"{len(changed)} {name} questions differ from those of the {label}, {changed[0]} among them"
        elif changed := [i for i in first if first[i].prompt_hash != second[i].prompt_hash]:
            yield f"{len(changed)} {name} prompts differ from those of the {label}, that of {changed[0]} among them"
    for name, evaluation in ((label, reference), ("candidate", candidate)):
        if not math.isfinite(evaluation.perplexity):
            yield f"the perplexity of the {name} is {evaluation.perplexity}, which is no number to compare"


def _same_articles(reference: Evaluation, candidate: Evaluation) -> bool:
    tokens = [{name: article.tokens for name, article in e.articles.items()} for e in (reference, candidate)]
    return (
        bool(candidate.validation_hash)
        and reference.validation_hash == candidate.validation_hash
        and tokens[0] == tokens[1]
    )


def _perplexity(label: str, reference: Evaluation, candidate: Evaluation, settings: RegisterSettings) -> Check:
    before, after = reference.perplexity, candidate.perplexity
    gain = 1 - after / before
    passed = after < before * (1 - settings.min_perplexity_gain)
    detail = f"perplexity {_moved(before, after)} from {before:.4g} to {after:.4g} against the {label} ({-gain:+.2%})"
    if after == before:
        detail = f"perplexity is the same as the {label}'s, {before:.4g}"
    elif not passed and after < before:
        detail += f", less than the required {settings.min_perplexity_gain:.2%}"
    numbers = {"reference": before, "candidate": after, "change": -gain}
    return Check(f"perplexity against {label}", passed, detail, numbers | _ratio(reference, candidate, settings))


def _ratio(reference: Evaluation, candidate: Evaluation, settings: RegisterSettings) -> dict[str, float]:
    """Interval of the relative change, paired by article; empty when there is one article only."""
    if len(candidate.articles) < 2:
        return {}
    pairs = [(article, reference.articles[name]) for name, article in candidate.articles.items()]
    differences = [article.nll - other.nll for article, other in pairs]
    mean = weighted_mean(differences, [article.tokens for article, _ in pairs], settings.confidence)
    return {"change_low": math.expm1(mean.low), "change_high": math.expm1(min(mean.high, 700.0))}


def _benchmark(label: str, name: str, reference: Benchmark, candidate: Benchmark, settings: RegisterSettings) -> Check:
    ids = sorted(reference.questions)
    difference = paired_difference(
        [reference.questions[i].correct for i in ids],
        [candidate.questions[i].correct for i in ids],
        settings.confidence,
    )
    interval = difference.interval
    passed = interval.high >= 0
    finding = "a loss beyond its confidence interval" if not passed else _finding(interval.low)
    detail = (
        f"{name} {_moved(reference.accuracy, candidate.accuracy)} from {reference.accuracy:.1%} to "
        f"{candidate.accuracy:.1%} against the {label}, {finding} "
        f"({100 * interval.low:+.1f} to {100 * interval.high:+.1f} points)"
    )
    numbers = {
        "reference": reference.accuracy,
        "candidate": candidate.accuracy,
        "change": interval.value,
        "change_low": interval.low,
        "change_high": interval.high,
        "gained": difference.gained,
        "lost": difference.lost,
        "p_value": difference.p_value,
        "detectable": difference.detectable,
    }
    return Check(f"{name} against {label}", passed, detail, numbers)


def _above_majority(name: str, benchmark: Benchmark) -> Check:
    passed = benchmark.accuracy > benchmark.majority
    relation = "above" if passed else "not above"
    detail = f"{name} at {benchmark.accuracy:.1%} is {relation} always giving the most frequent answer"
    numbers = {"candidate": benchmark.accuracy, "majority": benchmark.majority}
    return Check(f"{name} above majority", passed, f"{detail} ({benchmark.majority:.1%})", numbers)


def _moved(before: float, after: float) -> str:
    if after == before:
        return "stayed"
    return "rose" if after > before else "fell"


def _finding(low: float) -> str:
    return "a gain beyond its confidence interval" if low > 0 else "within its confidence interval"
