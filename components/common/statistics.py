"""Tests and confidence intervals: accuracies, differences of paired accuracies, several tests at once, token means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

_POWER = 0.8
_RESAMPLES = 10_000


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
        questions: How many both answered.
        reference: Share that the reference answers correctly.
        candidate: Share that the candidate answers correctly.
        gained: Questions that only the candidate answers correctly.
        lost: Questions that only the reference answers correctly.
        interval: The difference and its confidence interval (-1 to 1), in closed form.
        bootstrap: The same by drawing questions with replacement; it has no width where no question changed sides.
        p_value: Exact two-sided McNemar test.
        detectable: Smallest difference that a test at this level finds with 80% power, given as many discordant
            questions.
    """

    questions: int
    reference: float
    candidate: float
    gained: int
    lost: int
    interval: Interval
    bootstrap: Interval
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


def paired_difference(reference: ArrayLike, candidate: ArrayLike, confidence: float = 0.95) -> PairedDifference:
    """Compare two models on the same questions, question by question.

    The closed-form interval is method 10 of Newcombe 1998
    (https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22<2635), built from Wilson intervals and the correlation of
    the two models' answers. It holds for few questions too, so it is the one to decide by.

    Args:
        reference: For each question, whether the reference answers it correctly.
        candidate: The same for the candidate, in the same order.
        confidence: Coverage of the intervals; 1 minus it is the level that `detectable` is for.

    Raises:
        ValueError: The two do not have the same length, or are empty.
    """
    first, second = np.asarray(reference, dtype=bool), np.asarray(candidate, dtype=bool)
    if first.shape != second.shape or not first.size:
        raise ValueError(f"pairs of answers to the same questions are needed, not {first.size} and {second.size}")
    both, lost = int((first & second).sum()), int((first & ~second).sum())
    gained, questions = int((~first & second).sum()), first.size
    return PairedDifference(
        questions=questions,
        reference=(both + lost) / questions,
        candidate=(both + gained) / questions,
        gained=gained,
        lost=lost,
        interval=_newcombe(both, gained, lost, questions, confidence),
        bootstrap=_bootstrap(gained, lost, questions, confidence),
        p_value=_mcnemar(gained, lost),
        detectable=_detectable(gained + lost, questions, 1 - confidence),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests, so that one false finding among all is as rare as for a single test.

    Holm 1979, https://www.jstor.org/stable/4615733. scipy has no such correction, and statsmodels, which has, would
    bring 150 MB for it; the tests compare the two.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(order) - rank) * p_values[index])
        adjusted[index] = min(largest, 1.0)
    return adjusted


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


def _mcnemar(gained: int, lost: int) -> float:
    """The binomial test of a fair coin; its two tails are equal, so one is enough."""
    return min(2 * float(stats.binom.cdf(min(gained, lost), gained + lost, 0.5)), 1.0)


def _newcombe(both: int, gained: int, lost: int, questions: int, confidence: float) -> Interval:
    first = wilson(both + gained, questions, confidence)
    second = wilson(both + lost, questions, confidence)
    correlation = _correlation(both, gained, lost, questions - both - gained - lost)
    difference = (gained - lost) / questions
    below = _spread(first.value - first.low, second.high - second.value, correlation)
    above = _spread(first.high - first.value, second.value - second.low, correlation)
    return Interval(difference, difference - below, difference + above)


@lru_cache(maxsize=256)
def _bootstrap(gained: int, lost: int, questions: int, confidence: float, seed: int = 0) -> Interval:
    """Percentiles of the difference over resampled questions.

    Drawing questions with replacement is drawing how many of them are gained, lost and neither, so one multinomial
    draw stands for a whole resample.
    """
    shares = np.array([gained, lost, questions - gained - lost]) / questions
    draws = np.random.default_rng(seed).multinomial(questions, shares, size=_RESAMPLES)
    tail = (1 - confidence) / 2
    low, high = np.quantile((draws[:, 0] - draws[:, 1]) / questions, [tail, 1 - tail])
    return Interval((gained - lost) / questions, float(low), float(high))


def _detectable(discordant: int, questions: int, level: float) -> float:
    """Normal approximation of McNemar's power, but never less than the fewest one-sided changes that can be found."""
    factor = float(stats.norm.ppf(1 - level / 2) + stats.norm.ppf(_POWER))
    fewest = math.ceil(math.log2(2 / level))  # 2 * 0.5 ** fewest <= level
    return min(max(factor * math.sqrt(discordant), fewest) / questions, 1.0)


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
