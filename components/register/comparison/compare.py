"""Puts together what the report shows: every model, every pair, the questions won and lost, the paper's table."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from components.common.manifest import Manifest
from components.common.questions import Question, read_questions
from components.common.statistics import Interval, PairedDifference, wilson
from components.register.comparison.calibration import calibration, confusion
from components.register.comparison.comparison import (
    BenchmarkContamination,
    BenchmarkDifference,
    Comparison,
    ContaminationResults,
    Estimate,
    LicenceResults,
    ModelResults,
    PairedResult,
    PairResults,
    QuestionChange,
    Score,
)
from components.register.comparison.paper_table import paper_table
from components.register.evidence.contamination import Contamination
from components.register.evidence.evidence import Evidence
from components.register.evidence.licences import not_allowed
from components.register.evidence.results import Benchmark, Evaluation, FineTuning
from components.register.gate.pairs import (
    AS_IS,
    Difference,
    Pair,
    adjusted,
    counted_questions,
    differences,
    incomparable,
    pairs,
    perplexity_change,
    same_articles,
)
from components.register.gate.verdict import Verdict
from components.register.settings import RegisterSettings

Texts = Mapping[str, Mapping[str, Question]]


@dataclass(frozen=True, eq=False)
class _Compared:
    """A pair, what keeps it from being compared on some benchmarks, and the differences on the others."""

    pair: Pair
    obstacles: Mapping[str, list[str]]
    differences: Mapping[str, Difference]


def compare(
    evidence: Evidence, verdict: Verdict, settings: RegisterSettings, benchmarks: Manifest | None = None
) -> Comparison:
    """Return everything that a verdict rests on, as data.

    Args:
        evidence: What is known of the models.
        verdict: What the gate made of it.
        settings: The policy.
        benchmarks: Manifest of the benchmark files, for the questions' texts; None leaves them out.

    Raises:
        InputError: The benchmark files are not what they should be.
        StorageError: They cannot be read.
    """
    rival = evidence.rival
    models, compared = [*_models(evidence, settings.confidence)], _compared(evidence, settings)
    return Comparison(
        verdict=verdict,
        policy=settings.model_dump(mode="json"),
        confidence=settings.confidence,
        champion_version=rival.version if rival else None,
        champion_obstacle=rival.obstacle if rival else "",
        models=models,
        pairs=[*_pairs(compared, settings)],
        questions=[*_changes(evidence, compared, _texts(evidence, benchmarks))],
        contamination=_contamination(evidence),
        licences=LicenceResults(
            policy=settings.licences,
            counts=dict(evidence.licences),
            not_allowed=not_allowed(evidence.licences, settings.licences),
        ),
        table=paper_table(models),
    )


def _models(evidence: Evidence, confidence: float) -> Iterator[ModelResults]:
    tuned = {"base": evidence.base_fine_tuned, "candidate": evidence.candidate_fine_tuned}
    as_is: dict[str, Evaluation | None] = {"base": evidence.base, "candidate": evidence.candidate}
    if evidence.rival is not None:
        as_is["champion"], tuned["champion"] = evidence.rival.evaluation, evidence.rival.fine_tuned
    for role, evaluation in as_is.items():
        if evaluation is not None:
            yield _model(role, evaluation, None, evidence.contamination, confidence)
        for tuning, fine_tuned in sorted(tuned[role].items(), key=lambda item: item[0].title):
            yield _model(role, fine_tuned, tuning, evidence.contamination, confidence)


def _model(
    role: str, evaluation: Evaluation, tuning: FineTuning | None, known: Contamination | None, confidence: float
) -> ModelResults:
    measured = len(evaluation.articles) > 1 and math.isfinite(evaluation.perplexity)
    return ModelResults(
        role=role,
        name=evaluation.name,
        model=evaluation.model,
        evaluation_uri=evaluation.uri,
        fine_tuning=tuning,
        setting=tuning.title if tuning else AS_IS,
        articles=len(evaluation.articles),
        tokens=sum(article.tokens for article in evaluation.articles.values()),
        perplexity=_estimate(evaluation.perplexity_interval(confidence)) if measured else None,
        bits_per_byte=_estimate(evaluation.bits_per_byte(confidence)) if measured else None,
        benchmarks={
            name: _score(name, benchmark, known, tuning is not None, confidence)
            for name, benchmark in evaluation.benchmarks.items()
            if benchmark.questions
        },
    )


def _score(name: str, benchmark: Benchmark, known: Contamination | None, fine_tuned: bool, confidence: float) -> Score:
    counted = counted_questions(benchmark, name, known, fine_tuned)
    overlapping = known.overlapping(name) & benchmark.questions.keys() if known else frozenset[str]()
    free = [*(benchmark.questions.keys() - overlapping)]
    results = [*benchmark.questions.values()]
    return Score(
        questions=len(results),
        correct=sum(each.correct for each in results),
        accuracy=Estimate.model_validate(benchmark.interval(confidence)),
        majority=benchmark.majority if math.isfinite(benchmark.majority) else None,
        unparsable=sum(bool(each.answer) and not each.prediction for each in results),
        flagged=len(results) - len(counted),
        clean_questions=len(counted),
        clean_accuracy=_accuracy(benchmark, counted, confidence),
        overlapping=len(overlapping),
        overlap_free_questions=len(free),
        overlap_free_accuracy=_accuracy(benchmark, free, confidence),
        calibration=calibration(results, confidence),
        confusion=confusion(results),
    )


def _accuracy(benchmark: Benchmark, ids: Sequence[str], confidence: float) -> Estimate | None:
    return _estimate(wilson(int(benchmark.correct(ids).sum()), len(ids), confidence)) if ids else None


def _compared(evidence: Evidence, settings: RegisterSettings) -> list[_Compared]:
    """Compare every pair on every benchmark that it can be compared on."""
    found = []
    for pair in (pair for label in ("base", "champion") for pair in pairs(evidence, label)):
        names = sorted(pair.reference.benchmarks.keys() | pair.candidate.benchmarks.keys())
        obstacles = {name: [*incomparable(pair, [name])] for name in names}
        clear = [name for name in names if not obstacles[name]]
        found.append(_Compared(pair, obstacles, differences(pair, clear, evidence.contamination, settings.confidence)))
    return found


def _pairs(compared: Sequence[_Compared], settings: RegisterSettings) -> Iterator[PairResults]:
    for label in ("base", "champion"):
        mine = [one for one in compared if one.pair.label == label]
        decide = [one for one in mine if (one.pair.tuning is None) == (settings.judged_on == "as_is")]
        p_adjusted = adjusted(
            {
                (one.pair.setting, name): difference
                for one in decide
                for name, difference in one.differences.items()
                if name in settings.benchmarks
            }
        )
        for one in mine:
            yield _pair(one, p_adjusted, one in decide, settings)


def _pair(
    one: _Compared, p_adjusted: Mapping[tuple[str, str], float], decides: bool, settings: RegisterSettings
) -> PairResults:
    pair = one.pair
    comparable = same_articles(pair) and all(math.isfinite(e.perplexity) for e in (pair.reference, pair.candidate))
    return PairResults(
        reference=pair.label,
        setting=pair.setting,
        decides=decides,
        obstacles=[text for texts in one.obstacles.values() for text in texts],
        benchmarks={
            name: BenchmarkDifference(
                decides=decides and name in settings.benchmarks,
                margin=settings.margin_of(name),
                flagged=each.flagged,
                counted=_paired(each.counted, p_adjusted.get((pair.setting, name))) if each.counted else None,
                every=_paired(each.every, None),
            )
            for name, each in one.differences.items()
        },
        perplexity=_estimate(perplexity_change(pair, settings.confidence)) if comparable else None,
    )


def _paired(difference: PairedDifference, p_adjusted: float | None) -> PairedResult:
    return PairedResult(
        questions=difference.questions,
        reference=difference.reference,
        candidate=difference.candidate,
        gained=difference.gained,
        lost=difference.lost,
        change=Estimate.model_validate(difference.interval),
        bootstrap=Estimate.model_validate(difference.bootstrap),
        p_value=difference.p_value,
        p_adjusted=p_adjusted,
        detectable=difference.detectable,
    )


def _changes(evidence: Evidence, compared: Sequence[_Compared], texts: Texts) -> Iterator[QuestionChange]:
    """Return the questions that changed sides between models as they are, in the order of their benchmark."""
    as_is = [one for one in compared if one.pair.tuning is None]
    for name, benchmark in evidence.candidate.benchmarks.items():
        comparable = [one.pair for one in as_is if name in one.differences]
        flagged = evidence.contamination.flagged(name) if evidence.contamination else frozenset[str]()
        for question in benchmark.questions:
            if outcome := _outcome(comparable, name, question):
                yield _change(evidence, comparable, name, question, outcome, texts, question in flagged)


def _outcome(comparable: Sequence[Pair], name: str, question: str) -> dict[str, Literal["won", "lost"]]:
    changed: dict[str, Literal["won", "lost"]] = {}
    for pair in comparable:
        before = pair.reference.benchmarks[name].questions[question].correct
        after = pair.candidate.benchmarks[name].questions[question].correct
        if before != after:
            changed[pair.label] = "won" if after else "lost"
    return changed


def _change(
    evidence: Evidence,
    comparable: Sequence[Pair],
    name: str,
    question: str,
    outcome: dict[str, Literal["won", "lost"]],
    texts: Texts,
    flagged: bool,
) -> QuestionChange:
    own, text = evidence.candidate.benchmarks[name].questions[question], texts.get(name, {}).get(question)
    overlap = evidence.contamination.benchmarks.get(name, {}).get(question) if evidence.contamination else None
    predictions = {pair.label: pair.reference.benchmarks[name].questions[question].prediction for pair in comparable}
    return QuestionChange(
        benchmark=name,
        id=question,
        hash=own.question_hash,
        text=text.question if text else "",
        options=text.options if text else {},
        answer=own.answer,
        predictions={**predictions, "candidate": own.prediction},
        outcome=outcome,
        coverage=overlap.coverage if overlap else None,
        overlaps=bool(overlap and overlap.in_corpus),
        flagged=flagged,
    )


def _texts(evidence: Evidence, benchmarks: Manifest | None) -> Texts:
    if benchmarks is None:
        return {}
    return {
        name: {question.id: question for question in read_questions(benchmarks, name, "test")}
        for name in evidence.candidate.benchmarks
    }


def _contamination(evidence: Evidence) -> ContaminationResults | None:
    known = evidence.contamination
    if known is None:
        return None
    return ContaminationResults(
        ngram=known.ngram,
        coverage=known.coverage,
        policy=[*known.policy],
        benchmarks={
            name: _benchmark_contamination(known, name)
            for name in evidence.candidate.benchmarks
            if name in known.benchmarks
        },
    )


def _benchmark_contamination(known: Contamination, name: str) -> BenchmarkContamination:
    overlaps = known.benchmarks[name].values()
    return BenchmarkContamination(
        questions=len(overlaps),
        looked_for=sum(each.looked_for for each in overlaps),
        found=sum(each.found for each in overlaps),
        overlapping=sum(each.in_corpus for each in overlaps),
        flagged=len(known.flagged(name)),
        flagged_by_training=sum(each.training_coverage >= known.coverage for each in overlaps),
    )


def _estimate(interval: Interval | None) -> Estimate | None:
    known = interval is not None and all(math.isfinite(n) for n in (interval.value, interval.low, interval.high))
    return Estimate.model_validate(interval) if known else None
