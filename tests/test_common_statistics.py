"""The intervals equal published worked examples, agree with other libraries, and cover what they claim."""

import math

import numpy as np
import pytest
from scipy import stats

from components.common.statistics import holm, paired_difference, weighted_mean, wilson


def answers(both: int, gained: int, lost: int, neither: int) -> tuple[list[bool], list[bool]]:
    """The reference's and the candidate's answers with these counts."""
    reference = [True] * both + [False] * gained + [True] * lost + [False] * neither
    candidate = [True] * both + [True] * gained + [False] * lost + [False] * neither
    return reference, candidate


def test_wilson_equals_the_worked_example_of_newcombe_1998():
    interval = wilson(81, 263)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)


def test_the_paired_interval_equals_the_worked_example_of_newcombe_1998():
    # Table II of https://pubmed.ncbi.nlm.nih.gov/9839354/: cells 36, 12, 2, 0; method 10.
    difference = paired_difference(*answers(36, 12, 2, 0))
    assert (difference.questions, difference.gained, difference.lost) == (50, 12, 2)
    assert (difference.reference, difference.candidate) == (0.76, 0.96)
    assert difference.interval.value == pytest.approx(0.2)
    assert (difference.interval.low, difference.interval.high) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_mcnemar_is_the_exact_binomial_test_of_the_discordant_questions():
    difference = paired_difference([True] * 2 + [False] * 8, [False] * 2 + [True] * 8)
    # 2 of 10 discordant: 2 * (1 + 10 + 45) / 1024
    assert difference.p_value == pytest.approx(0.109375)


def test_swapping_the_models_mirrors_the_interval():
    first, second = [True] * 30 + [False] * 20, [True] * 21 + [False] * 17 + [True] * 12
    forth, back = paired_difference(first, second).interval, paired_difference(second, first).interval
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))


def test_models_that_answer_alike_differ_by_nothing():
    difference = paired_difference([True, False] * 50, [True, False] * 50)
    assert difference.interval.value == 0
    assert difference.interval.low < 0 < difference.interval.high
    assert (difference.bootstrap.low, difference.bootstrap.high) == (0, 0)
    assert difference.p_value == 1


def test_the_bootstrap_interval_is_that_of_drawing_questions_with_replacement():
    reference, candidate = answers(400, 90, 60, 450)
    ours = paired_difference(reference, candidate).bootstrap
    change = np.array(candidate, dtype=float) - np.array(reference, dtype=float)
    rng = np.random.default_rng(1)
    theirs = stats.bootstrap((change,), np.mean, n_resamples=4000, method="percentile", rng=rng).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)
    assert ours == paired_difference(reference, candidate).bootstrap


def test_the_closed_interval_and_the_bootstrap_agree_where_there_are_many_questions():
    difference = paired_difference(*answers(1500, 420, 330, 1933))
    closed, drawn = difference.interval, difference.bootstrap
    assert (closed.low, closed.high) == pytest.approx((drawn.low, drawn.high), abs=0.001)


def test_the_paired_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    shares = np.array([0.35, 0.15, 0.10, 0.40])
    covered = 0
    for both, gained, lost, neither in rng.multinomial(250, shares, size=400):
        interval = paired_difference(*answers(both, gained, lost, neither)).interval
        covered += interval.low <= 0.05 <= interval.high
    assert 0.92 <= covered / 400 <= 0.985


@pytest.mark.parametrize(
    ("questions", "low", "high"), [(500, 0.056, 0.069), (1273, 0.035, 0.043), (4183, 0.019, 0.024)]
)
def test_the_detectable_difference_of_the_benchmarks_is_as_known(questions, low, high):
    # 20% and 30% of the questions answered differently well: what two 7B models do.
    found = [
        paired_difference(*answers(0, changed // 2, changed - changed // 2, questions - changed)).detectable
        for changed in (questions // 5, 3 * questions // 10)
    ]
    assert found == pytest.approx([low, high], abs=6e-4)


def test_the_detectable_difference_is_found_in_four_of_five_cases():
    rng = np.random.default_rng(11)
    detectable = paired_difference(*answers(300, 125, 125, 450)).detectable
    gained, lost = (0.25 + detectable) / 2, (0.25 - detectable) / 2
    draws = rng.multinomial(1000, [gained, lost, 1 - gained - lost], size=500)
    found = sum(stats.binomtest(int(won), int(won + gone)).pvalue <= 0.05 for won, gone, _ in draws)
    assert 0.74 <= found / 500 <= 0.86


def test_where_nothing_changed_sides_six_questions_would_have_to():
    # 2 * 0.5 ** 6 = 0.031 is the first below 5%.
    assert paired_difference(*answers(60, 0, 0, 40)).detectable == pytest.approx(0.06)
    assert paired_difference(*answers(2, 0, 0, 1)).detectable == 1


@pytest.mark.parametrize(("first", "second"), [([True], [True, False]), ([], [])])
def test_answers_that_are_no_pairs_cannot_be_compared(first, second):
    with pytest.raises(ValueError, match="pairs of answers"):
        paired_difference(first, second)


def test_holm_multiplies_the_smallest_by_all_and_never_falls():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_equals_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(2)
    for tests in (1, 2, 3, 9, 30):
        p_values = (rng.random(tests) ** 3).tolist()
        assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1].tolist())


def test_the_weighted_mean_weighs_articles_by_their_tokens():
    interval = weighted_mean([10.0, 90.0, 20.0], [10, 30, 10])
    assert interval.value == pytest.approx(120 / 50)
    residuals = np.array([10 - 24, 90 - 72, 20 - 24])
    error = math.sqrt(1.5 * (residuals**2).sum()) / 50
    assert interval.high - interval.value == pytest.approx(4.302653 * error, rel=1e-6)


def test_the_interval_of_the_weighted_mean_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        tokens = rng.integers(100, 1000, size=60)
        losses = (2.0 + rng.normal(0, 0.3, size=60)) * tokens
        interval = weighted_mean(losses.tolist(), tokens.tolist())
        covered += interval.low <= 2.0 <= interval.high
    assert 0.92 <= covered / 400 <= 0.98


def test_one_article_has_no_interval():
    with pytest.raises(ValueError, match="two articles"):
        weighted_mean([1.0], [1.0])
