"""The intervals equal published worked examples and cover what they claim."""

import math

import numpy as np
import pytest

from components.common.statistics import paired_difference, weighted_mean, wilson


def test_wilson_equals_the_worked_example_of_newcombe_1998():
    interval = wilson(81, 263)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)


def test_the_paired_interval_equals_the_worked_example_of_newcombe_1998():
    # Table II of https://pubmed.ncbi.nlm.nih.gov/9839354/: cells 36, 12, 2, 0; method 10.
    candidate = [True] * 36 + [True] * 12 + [False] * 2
    reference = [True] * 36 + [False] * 12 + [True] * 2
    difference = paired_difference(reference, candidate)
    assert (difference.gained, difference.lost) == (12, 2)
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
    assert difference.p_value == 1
    assert difference.detectable == 0


def test_answers_to_different_numbers_of_questions_cannot_be_compared():
    with pytest.raises(ValueError, match="zip"):
        paired_difference([True], [True, False])


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
