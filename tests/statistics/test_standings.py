"""Win rates, Kendall's tau, and how an order holds in resamples, against brute force and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from evaluator.statistics.ranking import influences
from evaluator.statistics.standings import (
    drawn_values,
    kendall_tau,
    mean_win_rates,
    resampled_means,
    steadiness,
    win_shares,
)


def test_win_shares_count_the_others_that_are_beaten() -> None:
    values = [3.0, 1.0, 2.0, 2.0]
    np.testing.assert_allclose(win_shares(values, higher_is_better=True), [1, 0, 0.5, 0.5])
    np.testing.assert_allclose(win_shares(values, higher_is_better=False), [0, 1, 0.5, 0.5])


def test_win_shares_are_those_of_brute_force() -> None:
    values = np.random.default_rng(0).integers(0, 5, (3, 4, 7)).astype(float)
    values[0, 0, 2] = values[1, 1, :6] = np.nan
    found = win_shares(values, higher_is_better=True)
    for where in np.ndindex(3, 4):
        row = values[where]
        for i, mine in enumerate(row):
            others = [v for j, v in enumerate(row) if j != i and not np.isnan(v)]
            if np.isnan(mine) or not others:
                assert np.isnan(found[where][i])
            else:
                wins = sum((mine > v) + 0.5 * (mine == v) for v in others)
                assert found[where][i] == pytest.approx(wins / len(others))


def test_win_rates_leave_out_what_a_run_lacks() -> None:
    shares = [[1.0, 0.0, np.nan], [0.5, 0.5, np.nan], [np.nan, 1.0, np.nan]]
    np.testing.assert_allclose(mean_win_rates(shares), [0.75, 0.5, np.nan])


def test_equal_win_rates_are_equal_in_every_order_of_the_metrics() -> None:
    rates = mean_win_rates([[0.1, 0.3, 0.0], [0.2, 0.0, 0.1], [0.0, 0.0, 0.2]])
    assert rates[0] == rates[1] == rates[2]


def test_kendall_is_scipys() -> None:
    generator = np.random.default_rng(1)
    for _ in range(50):
        one, two = generator.integers(0, 6, (2, 9))
        expected = kendalltau(one, two).statistic
        assert kendall_tau(one, two) == pytest.approx(expected)


def test_kendall_leaves_out_runs_without_a_value() -> None:
    one, two = np.array([1.0, 2, np.nan, 4, 3]), np.array([2.0, 1, 5, np.nan, 3])
    both = [0, 1, 4]
    assert kendall_tau(one, two) == pytest.approx(kendalltau(one[both], two[both]).statistic)


def test_kendall_of_ties_alone_is_not_said() -> None:
    assert kendall_tau([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert kendall_tau([1.0], [1.0]) is None


def test_resampled_means_are_means_of_resampled_prompts() -> None:
    generator = np.random.default_rng(2)
    table = generator.normal(size=(3, 30))
    shares = np.stack([influences(row, np.arange(30), 30) for row in table])
    found = resampled_means(table.mean(axis=1), shares, num_resamples=5, seed=7)
    chosen = np.random.default_rng(7).integers(30, size=(5, 30))
    np.testing.assert_allclose(found, [table[:, rows].mean(axis=1) for rows in chosen])


def test_resampled_means_spread_as_the_mean_does() -> None:
    table = np.random.default_rng(3).normal(size=(2, 400))
    shares = np.stack([influences(row, np.arange(400), 400) for row in table])
    found = resampled_means([0.0, 0.0], shares, num_resamples=2000, seed=0)
    np.testing.assert_allclose(found.std(axis=0), table.std(axis=1) / 20, rtol=0.05)


def test_drawn_values_spread_by_their_errors() -> None:
    found = drawn_values([1.0, 5.0], [0.1, 2.0], num_resamples=4000, seed=0)
    np.testing.assert_allclose(found.mean(axis=0), [1.0, 5.0], atol=0.1)
    np.testing.assert_allclose(found.std(axis=0), [0.1, 2.0], rtol=0.04)


def test_steadiness_of_an_order_that_never_changes() -> None:
    rates = [1.0, 0.5, 0.0]
    found = steadiness(rates, np.tile(rates, (50, 1)))
    np.testing.assert_array_equal(found.first, [1, 0, 0])
    np.testing.assert_array_equal(found.keeps, [1, 1, 1])
    np.testing.assert_array_equal(found.low, rates)
    np.testing.assert_allclose(found.taus, 1.0)


def test_runs_that_tie_share_the_first_place() -> None:
    found = steadiness([0.5, 0.5], [[0.5, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(found.first, [0.75, 0.25])
    np.testing.assert_allclose(found.keeps, [1.0, 0.5])


def test_shares_of_first_places_add_up() -> None:
    draws = np.random.default_rng(4).integers(0, 4, (200, 6)) / 3
    found = steadiness(draws[0], draws)
    assert found.first.sum() == pytest.approx(1.0)
