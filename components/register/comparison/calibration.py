"""How far a model's own probabilities can be trusted, and which answers it confuses."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from components.common.statistics import wilson
from components.register.comparison.comparison import Calibration, Confusion, Estimate, ReliabilityBin
from components.register.evidence.results import QuestionResult

BINS = 10
UNPARSABLE = "unparsable"


def calibration(results: Sequence[QuestionResult], confidence: float, bins: int = BINS) -> Calibration | None:
    """Compare how sure a model is of its answers with how often it is right.

    A model's probability of an option is the softmax of the options' log-likelihoods: what it gives to other
    continuations does not count. The expected calibration error is that of Guo et al. 2017
    (https://arxiv.org/abs/1706.04599) over bins of equal width; empty bins are left out.

    Args:
        results: Answers to one benchmark.
        confidence: Coverage of the bins' intervals.
        bins: How many.

    Returns:
        None when a question has no log-likelihoods, as with generated answers, or one that is no number.
    """
    if not results or any(len(each.loglikelihoods) < 2 or each.answer not in each.loglikelihoods for each in results):
        return None
    scores, right = _matrix(results)
    if not np.isfinite(scores[~np.isneginf(scores)]).all():
        return None
    probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    sure = probabilities.max(axis=1)
    correct = np.fromiter((each.correct for each in results), dtype=np.bool_)
    targets = np.zeros_like(probabilities)
    targets[np.arange(len(right)), right] = 1
    found = list(_bins(sure, correct, confidence, bins))
    return Calibration(
        questions=len(results),
        ece=sum(each.questions * abs(each.confidence - each.accuracy.value) for each in found) / len(results),
        brier=float(((probabilities - targets) ** 2).sum(axis=1).mean()),
        bins=found,
    )


def confusion(results: Sequence[QuestionResult]) -> Confusion | None:
    """Count what was answered where what was right; None when results do not say.

    Answers that could not be read have a label of their own, which no question has as its answer.
    """
    if not results or not all(each.answer for each in results):
        return None
    answers = {each.answer for each in results}
    others = {each.prediction for each in results if each.prediction} - answers
    labels = [*_ordered(answers | others)]
    if any(not each.prediction for each in results):
        labels.append(UNPARSABLE)
    position = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    for each in results:
        counts[position[each.answer], position[each.prediction or UNPARSABLE]] += 1
    return Confusion(labels=labels, counts=counts.tolist())


def _matrix(results: Sequence[QuestionResult]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the log-likelihoods, a row per question, and the columns of the right answers.

    A question with fewer options than others has minus infinity in its last columns.
    """
    width = max(len(each.loglikelihoods) for each in results)
    rows = [[*each.loglikelihoods.values()] + [-np.inf] * (width - len(each.loglikelihoods)) for each in results]
    right = [[*each.loglikelihoods].index(each.answer) for each in results]
    return np.array(rows, dtype=np.float64), np.array(right, dtype=np.int64)


def _bins(
    sure: NDArray[np.float64], correct: NDArray[np.bool_], confidence: float, bins: int
) -> Iterable[ReliabilityBin]:
    numbers = np.minimum((sure * bins).astype(int), bins - 1)
    for number in range(bins):
        inside = numbers == number
        if inside.any():
            interval = wilson(int(correct[inside].sum()), int(inside.sum()), confidence)
            yield ReliabilityBin(
                low=number / bins,
                high=(number + 1) / bins,
                questions=int(inside.sum()),
                confidence=float(sure[inside].mean()),
                accuracy=Estimate.model_validate(interval),
            )


def _ordered(labels: Iterable[str]) -> list[str]:
    """PubMedQA's labels in its own order, letters by the alphabet."""
    usual = ["yes", "no", "maybe"]
    return sorted(labels, key=lambda label: (usual.index(label) if label in usual else len(usual), label))
