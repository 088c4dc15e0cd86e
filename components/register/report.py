"""The report of a registration: one self-contained page, a description for the registry, a row for the run table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.common.statistics import Interval
from components.register.gate import Check, Verdict
from components.register.results import Evaluation
from components.register.settings import RegisterSettings


def render(
    verdict: Verdict,
    base: Evaluation,
    candidate: Evaluation,
    champion: Evaluation | None,
    settings: RegisterSettings,
    version: str,
    tags: Mapping[str, str],
) -> str:
    """Return the report as HTML; every value in it is escaped and it loads nothing."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        verdict=verdict,
        model=settings.model_name,
        version=version,
        level=f"{settings.confidence:.0%}",
        rows=_rows(verdict, base, candidate, champion, settings),
        has_champion=champion is not None,
        tags=sorted((key, value) for key, value in tags.items() if value),
    )


def description(verdict: Verdict, base: Evaluation, candidate: Evaluation, settings: RegisterSettings) -> str:
    """Return the short model card of a version, in Markdown."""
    lines = [
        verdict.reason,
        "",
        "A language model trained further on biomedical articles. For research; not a medical device.",
        "",
        "| | base | this model | change |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row.measure} | {row.base} | {row.candidate} | {row.change} |"
        for row in _rows(verdict, base, candidate, None, settings)
    ]
    return "\n".join(lines)


def summary(verdict: Verdict, base: Evaluation, candidate: Evaluation, name: str, version: str) -> dict[str, Any]:
    """Return one flat row: names to numbers and words. A number that does not exist (NaN) is left out."""
    numbers = {"perplexity_base": base.perplexity, "perplexity_candidate": candidate.perplexity}
    for label, evaluation in (("base", base), ("candidate", candidate)):
        numbers |= {f"{key}_{label}": value.accuracy for key, value in evaluation.benchmarks.items() if value.questions}
    return {
        "model": name,
        "version": version,
        "passed": verdict.passed,
        "reason": verdict.reason,
        **{key: value for key, value in numbers.items() if math.isfinite(value)},
    }


@dataclass(frozen=True)
class _ReportRow:
    """One line of the table, ready to show."""

    measure: str
    base: str
    candidate: str
    champion: str
    change: str
    evidence: str
    majority: str


def _rows(
    verdict: Verdict,
    base: Evaluation,
    candidate: Evaluation,
    champion: Evaluation | None,
    settings: RegisterSettings,
) -> list[_ReportRow]:
    checks = {check.name: check for check in verdict.checks}
    level = settings.confidence
    rows = [
        _ReportRow(
            "Held-out perplexity",
            _perplexity(base, level),
            _perplexity(candidate, level),
            _perplexity(champion, level),
            _change(checks.get("perplexity against base"), "%"),
            "",
            "",
        )
    ]
    for name in sorted(base.benchmarks.keys() | candidate.benchmarks.keys()):
        check = checks.get(f"{name} against base")
        known = candidate.benchmarks.get(name) or base.benchmarks[name]
        rows.append(
            _ReportRow(
                name,
                _accuracy(base, name, level),
                _accuracy(candidate, name, level),
                _accuracy(champion, name, level),
                _change(check, " points"),
                _evidence(check),
                f"{known.majority:.1%}",
            )
        )
    return rows


def _perplexity(evaluation: Evaluation | None, confidence: float) -> str:
    if evaluation is None:
        return ""
    if len(evaluation.articles) < 2 or not math.isfinite(evaluation.perplexity):
        return f"{evaluation.perplexity:.4g}"
    interval = evaluation.perplexity_interval(confidence)
    return f"{interval.value:.4g} ({interval.low:.4g} to {interval.high:.4g})"


def _accuracy(evaluation: Evaluation | None, name: str, confidence: float) -> str:
    if evaluation is None:
        return ""
    benchmark = evaluation.benchmarks.get(name)
    if benchmark is None or not benchmark.questions:
        return "no result"
    interval: Interval = benchmark.interval(confidence)
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def _change(check: Check | None, unit: str) -> str:
    if check is None:
        return "not compared"
    numbers = check.numbers
    if "change_low" not in numbers:
        return f"{100 * numbers['change']:+.2f}{unit}"
    low, high = 100 * numbers["change_low"], 100 * numbers["change_high"]
    return f"{100 * numbers['change']:+.2f}{unit} ({low:+.2f} to {high:+.2f})"


def _evidence(check: Check | None) -> str:
    if check is None:
        return ""
    numbers = check.numbers
    if not numbers["gained"] and not numbers["lost"]:
        return "no question changed sides"
    return (
        f"{numbers['gained']:.0f} gained, {numbers['lost']:.0f} lost, p = {numbers['p_value']:.3g}; "
        f"80% power from {100 * numbers['detectable']:.1f} points"
    )
