"""Paired differences: closed forms, brute force over all sign flips, and SciPy's t-test."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from evaluator.errors import MetricError
from evaluator.metrics.intervals import jackknife_groups, jackknife_interval
from evaluator.statistics.paired import (
    all_flips,
    paired_jackknife,
    paired_mean_interval,
    sign_flip_test,
    sums_by_prompt,
)


def test_one_image_a_prompt_gives_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 17))
    found = paired_mean_interval(b - a, np.arange(17))
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.method == "paired, cluster-robust t"


def test_repeating_each_pair_changes_neither_interval_nor_p():
    rng = np.random.default_rng(1)
    once, prompts = rng.normal(0.3, 1.0, 12), np.arange(12)
    thrice, thrice_prompts = np.repeat(once, 3), np.repeat(prompts, 3)
    one, three = (
        paired_mean_interval(*each) for each in ((once, prompts), (thrice, thrice_prompts))
    )
    assert (one.low, one.high) == pytest.approx((three.low, three.high), rel=1e-12)
    tests = [
        sign_flip_test(sums_by_prompt(*each)).p
        for each in ((once, prompts), (thrice, thrice_prompts))
    ]
    assert tests[0] == tests[1]


def test_prompts_add_up_to_the_mean_difference_in_any_order():
    rng = np.random.default_rng(2)
    values, prompts = rng.normal(size=30), rng.integers(0, 9, 30)
    order = rng.permutation(30)
    sums = sums_by_prompt(values, prompts)
    assert sums.sum() == pytest.approx(values.mean(), rel=1e-12)
    assert sums_by_prompt(values[order], prompts[order]) == pytest.approx(sums, rel=1e-12)


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_all_flips_are_those_of_brute_force(count):
    values = np.random.default_rng(count).normal(0.5, 1.0, count)
    brute = [values @ signs for signs in itertools.product([1, -1], repeat=count)]
    assert sorted(all_flips(values)) == pytest.approx(sorted(brute), abs=1e-12)
    expected = np.mean(np.abs(brute) >= abs(values.sum()) - 1e-12)
    assert sign_flip_test(values).p == pytest.approx(expected, abs=1e-12)


def test_differences_of_one_sign_are_as_rare_as_they_can_be():
    found = sign_flip_test([0.2, 1.0, 0.4, 0.1])
    assert (found.p, found.least) == (2 / 16, 2 / 16)
    assert found.method == "sign flips, all 16 of 4"


def test_ties_count_as_extreme_whatever_rounding_does():
    # as SciPy counts them: 4 of the 8 sums of ±0.1 ±0.2 ±0.3 are 0
    values = np.array([0.1, 0.2, -0.3])
    assert sign_flip_test(values).p == 1.0
    scipy = stats.permutation_test((values,), np.mean, permutation_type="samples")
    assert scipy.pvalue == 1.0


def test_few_flips_agree_with_scipy():
    values = np.random.default_rng(5).normal(0.4, 1.0, 10)
    scipy = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_test(values).p == pytest.approx(scipy.pvalue, abs=1e-12)


def test_drawn_flips_come_near_all_of_them_and_repeat_themselves():
    values = np.random.default_rng(6).normal(0.3, 1.0, 18)
    exact = sign_flip_test(values).p
    # three prompts without a difference change nothing; with 60 tiny ones there are too many
    assert sign_flip_test(np.append(values, [0.0, 0.0, 0.0])).p == exact
    many = np.append(values, np.full(60, 1e-13))
    drawn = sign_flip_test(many, permutations=20_000, seed=3)
    assert drawn.p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))
    assert drawn == sign_flip_test(many, permutations=20_000, seed=3)
    assert drawn != sign_flip_test(many, permutations=20_000, seed=4)
    assert drawn.method == "sign flips, 20,000 drawn (seed 3)"


def test_a_drawn_p_is_never_0():
    assert sign_flip_test(np.ones(200), permutations=999).p == 1 / 1000


def test_the_p_does_not_know_which_run_is_first():
    values = np.random.default_rng(7).normal(0.2, 1.0, 300)
    assert sign_flip_test(values).p == sign_flip_test(-values).p


def test_equal_runs_differ_by_nothing():
    assert sign_flip_test(np.zeros(50)).p == 1.0
    interval = paired_mean_interval(np.zeros(6), np.arange(6))
    assert (interval.low, interval.high) == (0.0, 0.0)


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(MetricError, match="expected at least 2 prompts, got 1"):
        paired_mean_interval([1.0, 2.0], [0, 0])
    with pytest.raises(MetricError, match="expected finite differences"):
        sign_flip_test([1.0, np.nan])
    with pytest.raises(MetricError, match="permutations: expected 1 or more, got 0"):
        sign_flip_test([1.0], permutations=0)


def replicates_of_means(values: np.ndarray, groups: np.ndarray):
    left_out = [values[groups != group].mean() for group in np.unique(groups)]
    sizes = np.bincount(groups)
    found = jackknife_interval(values.mean(), left_out, sizes, covers="").replicates
    assert found is not None
    return found


@pytest.mark.parametrize("count", [40, 33])
def test_the_jackknife_of_a_mean_is_that_of_the_differences(count):
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(2, count))
    groups = jackknife_groups(np.arange(count), groups=10)
    found = paired_jackknife(
        replicates_of_means(a, groups),
        replicates_of_means(b, groups),
        difference=b.mean() - a.mean(),
    )
    alone = jackknife_interval(
        (b - a).mean(), replicates_of_means(b - a, groups).left_out, np.bincount(groups), covers=""
    )
    bounds = (found.interval.low, found.interval.high)
    assert bounds == pytest.approx((alone.low, alone.high), rel=1e-9)
    # a mean is linear: what a group adds is its sum, and all add up to the difference
    expected = np.bincount(groups, weights=b - a) / count
    assert found.contributions == pytest.approx(expected, rel=1e-9)


def test_as_many_groups_as_prompts_give_the_paired_t_test():
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=(2, 14))
    groups = np.arange(14)
    first, second = (replicates_of_means(each, groups) for each in (a, b))
    found = paired_jackknife(first, second, difference=b.mean() - a.mean()).interval
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_what_both_runs_share_cancels():
    rng = np.random.default_rng(10)
    shared, groups = rng.normal(0.0, 50.0, 60), np.arange(60) % 12
    a, b = shared + rng.normal(size=60), shared + 1.2 + rng.normal(size=60)
    first, second = (replicates_of_means(each, groups) for each in (a, b))
    found = paired_jackknife(first, second, difference=b.mean() - a.mean())
    assert found.interval.high - found.interval.low < 2.0
    assert sign_flip_test(found.contributions).p < 0.05


def test_another_estimate_moves_the_interval_and_its_own_variance_widens_it():
    rng = np.random.default_rng(11)
    a, b = rng.normal(size=(2, 20))
    first, second = (replicates_of_means(each, np.arange(20)) for each in (a, b))
    plain = paired_jackknife(first, second, difference=b.mean() - a.mean()).interval
    noisy = paired_jackknife(
        first._replace(extra_variance=0.1),
        second._replace(extra_variance=0.1),
        difference=b.mean() - a.mean() + 2.0,
    ).interval
    assert (noisy.low + noisy.high) / 2 == pytest.approx((plain.low + plain.high) / 2 + 2.0)
    quantile = stats.t.ppf(0.975, 19)
    widened = np.hypot((plain.high - plain.low) / 2, quantile * np.sqrt(0.2))
    assert (noisy.high - noisy.low) / 2 == pytest.approx(widened)


def test_groups_of_other_sizes_are_refused():
    values = np.arange(12.0)
    first = replicates_of_means(values, np.arange(12) % 4)
    second = replicates_of_means(values[:11], np.arange(11) % 4)
    with pytest.raises(MetricError, match="expected groups of the same sizes"):
        paired_jackknife(first, second, difference=0.0)
