"""Pairs of models that answered the same: whether they may be compared, and by how much they differ."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from components.common.statistics import Interval, PairedDifference, holm, paired_difference, weighted_mean
from components.register.evidence.contamination import Contamination
from components.register.evidence.evidence import Evidence, FineTunedResults
from components.register.evidence.results import Benchmark, Evaluation, FineTuning

AS_IS = "as is"


@dataclass(frozen=True, eq=False)
class Pair:
    """A candidate and the model that it is compared with, both as they are or both fine-tuned alike.

    Attributes:
        label: What people call the reference: ``base`` or ``champion``.
        tuning: How both were fine-tuned; None when they are compared as they are.
        learned_questions: Whether the candidate learned from benchmarks' training questions.
    """

    label: str
    reference: Evaluation
    candidate: Evaluation
    tuning: FineTuning | None = None
    learned_questions: bool = False

    @property
    def setting(self) -> str:
        """In words, such as ``as is``."""
        return self.tuning.title if self.tuning else AS_IS

    def title(self, benchmark: str) -> str:
        """What sentences call a benchmark of this pair."""
        return f"{benchmark} {self.tuning.title}" if self.tuning else benchmark


@dataclass(frozen=True)
class Difference:
    """How much two models differ on a benchmark.

    Attributes:
        counted: Over the questions that count: without those that a model may know by heart. None when none is left.
        every: Over all questions.
        flagged: How many were left out.
        p_adjusted: `counted.p_value` after Holm's correction; None for a benchmark that does not decide.
    """

    counted: PairedDifference | None
    every: PairedDifference
    flagged: int
    p_adjusted: float | None = None


def pairs(evidence: Evidence, label: str) -> list[Pair]:
    """Return the pairs with the base or the champion: first as they are, then those fine-tuned alike."""
    if label == "base":
        reference, tuned = evidence.base, evidence.base_fine_tuned
    elif evidence.rival is not None and evidence.rival.evaluation is not None:
        reference, tuned = evidence.rival.evaluation, evidence.rival.fine_tuned
    else:
        return []
    as_is = Pair(label, reference, evidence.candidate, learned_questions=evidence.learned_questions)
    return [as_is, *_tuned_alike(label, tuned, evidence.candidate_fine_tuned)]


def incomparable(pair: Pair, benchmarks: Sequence[str]) -> Iterator[str]:
    """Say what makes the answers of two models to these benchmarks incomparable."""
    who = f"the {pair.label}"
    for name in benchmarks:
        there = {label: evaluation.benchmarks.get(name) for label, evaluation in _both(pair)}
        missing = [label for label, benchmark in there.items() if benchmark is None or not benchmark.questions]
        if missing:
            yield f"{' and '.join(missing)} {'have' if len(missing) > 1 else 'has'} no result for {pair.title(name)}"
            continue
        first, second = (benchmark.questions for benchmark in there.values() if benchmark)
        title = pair.title(name)
        if first.keys() != second.keys():
            yield f"{who} and the candidate answered other sets of {title} questions ({len(first)}, {len(second)})"
        elif changed := [i for i in first if first[i].question_hash != second[i].question_hash]:
            yield f"{len(changed)} {title} questions differ from those of {who}, {changed[0]} among them"
        elif changed := [i for i in first if first[i].prompt_hash != second[i].prompt_hash]:
            yield f"{len(changed)} {title} prompts differ from those of {who}, that of {changed[0]} among them"
        else:
            yield from _no_numbers(pair, name)


def differences(
    pair: Pair, benchmarks: Sequence[str], contamination: Contamination | None, confidence: float
) -> dict[str, Difference]:
    """Compare two comparable models on each of these benchmarks; `p_adjusted` is left open."""
    return {name: _difference(pair, name, contamination, confidence) for name in benchmarks}


def adjusted(found: Mapping[tuple[str, str], Difference]) -> dict[tuple[str, str], float]:
    """Return Holm's p-values of all differences that have one, by the same keys."""
    p_values = {key: each.counted.p_value for key, each in found.items() if each.counted}
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))


def same_articles(pair: Pair) -> bool:
    """Tell whether both were measured on the same windows of the same held-out articles."""
    tokens = [
        {name: article.tokens for name, article in evaluation.articles.items()}
        for evaluation in (pair.reference, pair.candidate)
    ]
    known = bool(pair.candidate.validation_hash)
    return known and pair.reference.validation_hash == pair.candidate.validation_hash and tokens[0] == tokens[1]


def perplexity_change(pair: Pair, confidence: float) -> Interval | None:
    """Relative change of perplexity with its interval, paired by article; None when there are too few articles."""
    if len(pair.candidate.articles) < 2:
        return None
    matched = [(article, pair.reference.articles[name]) for name, article in pair.candidate.articles.items()]
    losses = [article.nll - other.nll for article, other in matched]
    mean = weighted_mean(losses, [article.tokens for article, _ in matched], confidence)
    return Interval(*(math.expm1(min(change, 700.0)) for change in (mean.value, mean.low, mean.high)))


def counted_questions(
    benchmark: Benchmark, name: str, contamination: Contamination | None, fine_tuned: bool
) -> list[str]:
    """Return the ids of the questions that count, sorted."""
    flagged = contamination.flagged(name, fine_tuned) if contamination else frozenset[str]()
    return sorted(benchmark.questions.keys() - flagged)


def _tuned_alike(label: str, reference: FineTunedResults, candidate: FineTunedResults) -> Iterator[Pair]:
    for tuning in sorted(reference.keys() & candidate.keys(), key=lambda each: (each.method, each.tasks, each.title)):
        yield Pair(label, reference[tuning], candidate[tuning], tuning, learned_questions=True)


def _difference(pair: Pair, name: str, contamination: Contamination | None, confidence: float) -> Difference:
    first, second = pair.reference.benchmarks[name], pair.candidate.benchmarks[name]
    counted = counted_questions(second, name, contamination, pair.learned_questions)
    every = paired_difference(first.correct(second.questions), second.correct(second.questions), confidence)
    flagged = len(second.questions) - len(counted)
    if flagged == 0 or not counted:
        return Difference(None if not counted else every, every, flagged)
    return Difference(paired_difference(first.correct(counted), second.correct(counted), confidence), every, flagged)


def _no_numbers(pair: Pair, name: str) -> Iterator[str]:
    for label, evaluation in _both(pair):
        results = evaluation.benchmarks[name].questions.values()
        broken = [r.id for r in results if not all(map(math.isfinite, r.loglikelihoods.values()))]
        if broken:
            yield (
                f"{label} gave no finite probability for {len(broken)} {pair.title(name)} questions, "
                f"{broken[0]} among them"
            )


def _both(pair: Pair) -> tuple[tuple[str, Evaluation], tuple[str, Evaluation]]:
    return (f"the {pair.label}", pair.reference), ("the candidate", pair.candidate)
