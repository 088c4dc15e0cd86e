"""Confidence intervals for accuracies, for differences of paired accuracies and for token-weighted means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

# z(97.5%) + z(80%): a two-sided 5% test with 80% power.
_POWER_FACTOR = 2.8016


@dataclass(frozen=True)
class Interval:
    """An estimate with the confidence interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of a candidate minus that of a reference on the same questions.

    Attributes:
        gained: Questions that only the candidate answers correctly.
        lost: Questions that only the reference answers correctly.
        interval: The difference and its confidence interval (-1 to 1).
        p_value: Exact two-sided McNemar test.
        detectable: Smallest difference that a test at 5% finds with 80% power, given as many discordant questions.
    """

    gained: int
    lost: int
    interval: Interval
    p_value: float
    detectable: float


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953).

    Args:
        successes: Number of correct answers.
        trials: Number of questions, at least 1.
        confidence: Coverage, such as 0.95.

    Raises:
        ValueError: There are no trials, or more successes than trials.
    """
    limits = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Interval(successes / trials, float(limits.low), float(limits.high))


def paired_difference(
    reference: Sequence[bool], candidate: Sequence[bool], confidence: float = 0.95
) -> PairedDifference:
    """Compare two models on the same questions, question by question.

    The interval is method 10 of Newcombe 1998 (https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22<2635), built
    from Wilson intervals and the correlation of the two models' answers; it is closed-form, so it repeats exactly.

    Args:
        reference: For each question, whether the reference answers it correctly.
        candidate: The same for the candidate, in the same order.
        confidence: Coverage of the interval.

    Raises:
        ValueError: The two do not have the same length, or are empty.
    """
    pairs = list(zip(reference, candidate, strict=True))
    both, lost = pairs.count((True, True)), pairs.count((True, False))
    gained, neither = pairs.count((False, True)), pairs.count((False, False))
    first = wilson(both + gained, len(pairs), confidence)
    second = wilson(both + lost, len(pairs), confidence)
    correlation = _correlation(both, gained, lost, neither)
    difference = (gained - lost) / len(pairs)
    below = _spread(first.value - first.low, second.high - second.value, correlation)
    above = _spread(first.high - first.value, second.value - second.low, correlation)
    return PairedDifference(
        gained=gained,
        lost=lost,
        interval=Interval(difference, difference - below, difference + above),
        p_value=float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0,
        detectable=_POWER_FACTOR * math.sqrt(gained + lost) / len(pairs),
    )


def weighted_mean(sums: Sequence[float], weights: Sequence[float], confidence: float = 0.95) -> Interval:
    """Ratio of two totals, such as loss per token, with an interval over the units that were sampled.

    Tokens of one article are not independent, articles are: the variance is that of the articles' residuals around
    the ratio (linearisation; Cochran 1977, Sampling Techniques, section 6.3), the quantile Student's t.

    Args:
        sums: Total of the quantity for each article.
        weights: Number of tokens of each article.
        confidence: Coverage of the interval.

    Raises:
        ValueError: There are fewer than two articles: one says nothing about how much articles differ.
    """
    totals, sizes = np.asarray(sums, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if len(totals) != len(sizes) or len(totals) < 2:
        raise ValueError(f"an interval needs at least two articles, not {len(totals)} sums and {len(sizes)} weights")
    ratio = totals.sum() / sizes.sum()
    residuals = totals - ratio * sizes
    units = len(totals)
    error = math.sqrt(units / (units - 1) * float(residuals @ residuals)) / sizes.sum()
    margin = float(stats.t.ppf((1 + confidence) / 2, units - 1)) * error
    return Interval(float(ratio), float(ratio - margin), float(ratio + margin))


def _correlation(both: int, gained: int, lost: int, neither: int) -> float:
    """Newcombe's phi, with his continuity correction for positive association."""
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if margins == 0:
        return 0.0
    cross = float(both * neither - gained * lost)
    if cross > 0:
        cross = max(cross - (both + gained + lost + neither) / 2, 0.0)
    return cross / math.sqrt(margins)


def _spread(own: float, other: float, correlation: float) -> float:
    return math.sqrt(max(own**2 - 2 * correlation * own * other + other**2, 0.0))
