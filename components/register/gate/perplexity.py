"""The gate's check of held-out perplexity."""

import math
from collections.abc import Iterator

from components.common.statistics import Interval
from components.register.gate.pairs import Pair, perplexity_change, same_articles
from components.register.gate.verdict import Check, Numbers, moved, with_interval
from components.register.settings import RegisterSettings


def perplexity(pair: Pair, settings: RegisterSettings) -> Check:
    """Check the change of perplexity between two models that were measured on the same articles.

    Against the base it must fall by the required share. Against the champion it may rise within its margin, unless
    perplexity is the gain that the recipe asks for; that gain must be beyond chance: its whole interval below zero.
    """
    before, after = pair.reference.perplexity, pair.candidate.perplexity
    change, interval = after / before - 1, perplexity_change(pair, settings.confidence)
    must_fall = pair.label == "base" or _decides(pair, settings)
    threshold = -settings.min_perplexity_gain if must_fall else settings.champion_perplexity_margin
    reached = change < 0 and change <= threshold if must_fall else change <= threshold
    certain = not _decides(pair, settings) or (interval is not None and interval.high < 0)
    numbers: Numbers = {
        "reference": before,
        "candidate": after,
        "change": change,
        "value": change,
        "threshold": threshold,
        "n": float(len(pair.candidate.articles)),
    }
    detail = _finding(pair, change, interval)
    if not reached:
        detail += _shortfall(change, threshold)
    elif not certain:
        detail += ", which may be chance" if interval else ", of which one article is no evidence"
    name, passed = f"perplexity against {pair.label}", reached and certain
    return Check(name, passed, detail, with_interval(numbers, interval), noteworthy=True)


def perplexity_set_aside(pair: Pair) -> Check:
    """Say that the perplexities were not compared, where the recipe lets the benchmarks alone decide."""
    detail = f"perplexity was not compared with the {pair.label}'s, which was measured on other articles"
    return Check(f"perplexity against {pair.label}", True, detail, noteworthy=True)


def perplexity_obstacles(pair: Pair, settings: RegisterSettings) -> Iterator[str]:
    """Say what makes two perplexities incomparable."""
    for name, evaluation in ((pair.label, pair.reference), ("candidate", pair.candidate)):
        if not math.isfinite(evaluation.perplexity):
            yield f"the perplexity of the {name} is {evaluation.perplexity}, which is no number to compare"
    benchmarks_only = pair.label == "champion" and settings.champion_on_other_articles == "benchmarks_only"
    if not same_articles(pair) and not benchmarks_only:
        yield (
            f"the perplexity of the {pair.label} was measured on other articles or windows; evaluate it again on this "
            "corpus"
        )


def _decides(pair: Pair, settings: RegisterSettings) -> bool:
    """Tell whether perplexity is what must have gained in this pair."""
    return settings.significant_gain == "perplexity" and (pair.label == "base" or settings.against_champion == "better")


def _finding(pair: Pair, change: float, interval: Interval | None) -> str:
    before, after = pair.reference.perplexity, pair.candidate.perplexity
    if change == 0:
        return f"perplexity is the same as the {pair.label}'s, {before:.4g}"
    ends = f", {interval.low:+.2%} to {interval.high:+.2%}" if interval else ""
    return f"perplexity {moved(change)} from {before:.4g} to {after:.4g} against the {pair.label} ({change:+.2%}{ends})"


def _shortfall(change: float, threshold: float) -> str:
    if threshold > 0:
        return f", more than the {threshold:.2%} that it may rise"
    return f", less than the required {-threshold:.2%}" if change < 0 else ""
