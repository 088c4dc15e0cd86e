"""The gate promotes what is better, refuses what is worse, and refuses what cannot be compared."""

import math
from dataclasses import replace

import pytest
from pydantic import ValidationError

from components.register.gate import Verdict, conclude, decide
from components.register.results import ArticleResult, Benchmark, Evaluation, QuestionResult
from components.register.settings import RegisterSettings

SETTINGS = RegisterSettings()


def answers(correct: int, of: int = 200, majority: float = 0.3, first: int = 0) -> Benchmark:
    """`correct` questions in a row answered correctly, from the question `first` on."""
    return Benchmark(
        {
            f"q{i}": QuestionResult(
                id=f"q{i}", question_hash=f"h{i}", prompt_hash=f"p{i}", correct=first <= i < first + correct
            )
            for i in range(of)
        },
        majority,
    )


def evaluation(name: str, loss: float, medqa: Benchmark, pubmedqa: Benchmark | None = None) -> Evaluation:
    """An evaluation with a perplexity of exp(loss), on twelve articles of different difficulty."""
    losses = {f"PMC{i}": (100 + i, (100 + i) * (loss + (i % 2 - 0.5) * 0.1 * (i < 10))) for i in range(12)}
    total = sum(tokens for tokens, _ in losses.values())
    shift = loss - sum(nll for _, nll in losses.values()) / total
    articles = {k: ArticleResult(id=k, tokens=t, nll=nll + shift * t) for k, (t, nll) in losses.items()}
    return Evaluation(
        name, f"fp-{name}", "same-windows", articles, {"medqa": medqa, "pubmedqa": pubmedqa or answers(90)}
    )


BASE = evaluation("base", 3.0, answers(60))


def check(verdict: Verdict, name: str):
    return next(found for found in verdict.checks if found.name == name)


def test_a_candidate_better_on_everything_is_promoted_and_the_sentence_says_by_how_much():
    verdict = decide(BASE, evaluation("candidate", 2.5, answers(100)), None, SETTINGS)
    assert verdict.passed
    assert verdict.reason == (
        "Promoted: perplexity fell from 20.09 to 12.18 against the base (-39.35%), "
        "and no benchmark lost beyond its confidence interval."
    )
    medqa = check(verdict, "medqa against base")
    assert medqa.detail == (
        "medqa rose from 30.0% to 50.0% against the base, a gain beyond its confidence interval (+14.3 to +25.5 points)"
    )
    assert (medqa.numbers["gained"], medqa.numbers["lost"]) == (40, 0)
    assert medqa.numbers["p_value"] < 1e-9


def test_a_higher_perplexity_is_refused_even_where_every_benchmark_gains():
    verdict = decide(BASE, evaluation("candidate", 3.2, answers(100)), None, SETTINGS)
    assert not verdict.passed
    assert verdict.reason == "Not promoted: perplexity rose from 20.09 to 24.53 against the base (+22.14%)."
    assert check(verdict, "medqa against base").passed


def test_a_loss_beyond_the_confidence_interval_is_refused_even_where_perplexity_falls():
    verdict = decide(BASE, evaluation("candidate", 2.5, answers(35)), None, SETTINGS)
    assert not verdict.passed
    assert verdict.reason.startswith(
        "Not promoted: medqa fell from 30.0% to 17.5% against the base, a loss beyond its confidence interval (-1"
    )
    assert check(verdict, "perplexity against base").passed
    assert check(verdict, "pubmedqa against base").passed


def test_a_loss_within_the_confidence_interval_does_not_stop_a_model():
    # 10 questions gained and 14 lost of 200: down by 2 points, p = 0.54.
    verdict = decide(BASE, evaluation("candidate", 2.5, answers(56, first=14)), None, SETTINGS)
    medqa = check(verdict, "medqa against base")
    assert (medqa.numbers["gained"], medqa.numbers["lost"]) == (10, 14)
    assert medqa.numbers["change"] == pytest.approx(-0.02)
    assert "fell from 30.0% to 28.0% against the base, within its confidence interval" in medqa.detail
    assert verdict.passed


def test_the_answers_are_compared_in_pairs_and_not_as_two_percentages():
    # The same 5 points: lost question by question it is certain, among many changed answers it is not.
    steady = decide(BASE, evaluation("candidate", 2.5, answers(50)), None, SETTINGS)
    noisy = decide(BASE, evaluation("candidate", 2.5, answers(50, first=60)), None, SETTINGS)
    for verdict in (steady, noisy):
        assert check(verdict, "medqa against base").numbers["change"] == pytest.approx(-0.05)
    assert not steady.passed
    assert noisy.passed


def test_a_model_equal_to_its_base_is_refused():
    verdict = decide(BASE, replace(BASE, name="candidate"), None, SETTINGS)
    assert verdict.reason == "Not promoted: perplexity is the same as the base's, 20.09."
    assert check(verdict, "medqa against base").passed


def test_a_gain_smaller_than_required_is_refused_and_named():
    candidate = evaluation("candidate", 2.995, answers(60))
    assert decide(BASE, candidate, None, SETTINGS).passed
    verdict = decide(BASE, candidate, None, RegisterSettings(min_perplexity_gain=0.01))
    assert verdict.reason == (
        "Not promoted: perplexity fell from 20.09 to 19.99 against the base (-0.50%), less than the required 1.00%."
    )


def test_the_change_of_perplexity_has_an_interval_paired_by_article():
    numbers = check(decide(BASE, evaluation("c", 2.9, answers(60)), None, SETTINGS), "perplexity against base").numbers
    assert numbers["change"] == pytest.approx(math.exp(-0.1) - 1)
    # Every article improved by the same 0.1 nats a token: paired, there is no doubt left.
    assert numbers["change_low"] == pytest.approx(numbers["change"], abs=1e-9)
    assert numbers["change_high"] == pytest.approx(numbers["change"], abs=1e-9)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("broken", ["base", "candidate"])
def test_a_perplexity_that_is_no_number_is_refused(value, broken):
    good = evaluation("candidate", 2.5, answers(100))
    pair = {"base": BASE, "candidate": good}
    articles = dict(pair[broken].articles)
    articles["PMC3"] = articles["PMC3"].model_copy(update={"nll": value})
    pair[broken] = replace(pair[broken], articles=articles)
    verdict = decide(pair["base"], pair["candidate"], None, SETTINGS)
    assert verdict.reason == f"Not promoted: the perplexity of the {broken} is {value}, which is no number to compare."


def test_a_missing_benchmark_is_refused_on_either_side():
    candidate = evaluation("candidate", 2.5, answers(100))
    without = {"pubmedqa": answers(90)}
    verdict = decide(BASE, replace(candidate, benchmarks=without), None, SETTINGS)
    assert verdict.reason == "Not promoted: the candidate has no result for medqa."
    verdict = decide(replace(BASE, benchmarks=without), candidate, None, SETTINGS)
    assert verdict.reason == "Not promoted: the base has no result for medqa."
    verdict = decide(replace(BASE, benchmarks={}), replace(candidate, benchmarks={}), None, SETTINGS)
    assert verdict.reason == "Not promoted: neither the base nor the candidate has a benchmark result."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_hash": "other"}, "1 medqa questions differ from those of the base, q7 among them"),
        ({"prompt_hash": "other"}, "1 medqa prompts differ from those of the base, that of q7 among them"),
    ],
)
def test_other_questions_or_prompts_are_refused_by_the_question(change, message):
    medqa = answers(100)
    changed = dict(medqa.questions) | {"q7": medqa.questions["q7"].model_copy(update=change)}
    verdict = decide(BASE, evaluation("candidate", 2.5, replace(medqa, questions=changed)), None, SETTINGS)
    assert verdict.reason == f"Not promoted: {message}."


def test_a_part_of_the_questions_is_refused():
    verdict = decide(BASE, evaluation("candidate", 2.5, answers(60, of=150)), None, SETTINGS)
    assert "answered other sets of medqa questions (200, 150)" in verdict.reason


def test_perplexities_of_other_articles_are_refused():
    candidate = evaluation("candidate", 2.5, answers(100))
    for other in (
        replace(candidate, validation_hash="other"),
        replace(candidate, articles={"PMC1": candidate.articles["PMC1"]}),
    ):
        verdict = decide(BASE, other, None, SETTINGS)
        assert verdict.reason.startswith("Not promoted: the perplexity of the base was measured on other articles")
    unhashed = [replace(e, validation_hash="") for e in (BASE, candidate)]
    assert not decide(unhashed[0], unhashed[1], None, SETTINGS).passed


def test_a_candidate_that_beats_the_base_but_not_the_champion_is_refused():
    champion = evaluation("champion", 2.2, answers(110))
    candidate = evaluation("candidate", 2.5, answers(100))
    verdict = decide(BASE, candidate, champion, SETTINGS)
    assert verdict.reason.startswith(
        "Not promoted: perplexity rose from 9.025 to 12.18 against the champion (+34.99%); "
    )
    assert "medqa fell from 55.0% to 50.0% against the champion" in verdict.reason
    assert check(verdict, "perplexity against base").passed
    assert decide(BASE, candidate, champion, RegisterSettings(compare_with_champion=False)).passed


def test_a_candidate_that_beats_both_says_so_twice():
    champion = evaluation("champion", 2.7, answers(80))
    verdict = decide(BASE, evaluation("candidate", 2.5, answers(100)), champion, SETTINGS)
    assert verdict.passed
    assert (
        "against the base (-39.35%), perplexity fell from 14.88 to 12.18 against the champion (-18.13%)"
        in verdict.reason
    )


def test_a_champion_of_another_corpus_is_refused_or_compared_on_benchmarks_only():
    champion = replace(evaluation("champion", 2.2, answers(80)), validation_hash="older corpus")
    candidate = evaluation("candidate", 2.5, answers(100))
    assert (
        "the perplexity of the champion was measured on other articles"
        in decide(BASE, candidate, champion, SETTINGS).reason
    )
    lenient = RegisterSettings(champion_on_other_articles="benchmarks_only")
    assert decide(BASE, candidate, champion, lenient).passed
    assert not decide(BASE, evaluation("candidate", 2.5, answers(60)), champion, lenient).passed
    assert not decide(replace(BASE, validation_hash="older corpus"), candidate, None, lenient).passed


def test_a_model_below_the_majority_baseline_is_refused_where_that_is_asked_for():
    candidate = evaluation("candidate", 2.5, answers(70, majority=0.5), answers(120, majority=0.55))
    assert decide(BASE, candidate, None, SETTINGS).passed
    verdict = decide(BASE, candidate, None, RegisterSettings(require_above_majority=True))
    assert verdict.reason == (
        "Not promoted: medqa at 35.0% is not above always giving the most frequent answer (50.0%)."
    )
    assert check(verdict, "pubmedqa above majority").passed


def test_no_check_is_no_promotion():
    assert conclude([]) == Verdict(False, "Not promoted: nothing was compared.", [])


@pytest.mark.parametrize(
    "wrong", [{"model_name": "a'b"}, {"model_name": ""}, {"min_perplexity_gain": 1}, {"confidence": 0}, {"x": 1}]
)
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        RegisterSettings(**wrong)
