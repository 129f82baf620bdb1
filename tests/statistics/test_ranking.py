"""Rank ranges: they hold the true ranks, all at once, as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import studentized_range

from evaluator.metrics.intervals import clustered_mean_interval, t_quantile
from evaluator.statistics.ranking import (
    influences,
    paired_ranges,
    places,
    rank_ranges,
    unpaired_ranges,
)

MEANS = np.array([0.0, 0.0, 0.03, 0.03, 0.06, 0.4])
"""True values with two pairs of ties and near neighbours, where ranks are hardest to cover."""


def scores(generator: np.random.Generator, prompts: int = 120) -> np.ndarray:
    """(R, P) scores that share how hard each prompt is."""
    hardness = generator.normal(0.0, 0.5, prompts)
    return MEANS[:, None] + hardness + generator.normal(0.0, 0.3, (MEANS.size, prompts))


def influence_of(table: np.ndarray) -> np.ndarray:
    numbers = np.arange(table.shape[1])
    return np.stack([influences(row, numbers, table.shape[1]) for row in table])


def covers(low: np.ndarray, high: np.ndarray, truth: np.ndarray) -> bool:
    """Whether every set of true ranks (1 + better to R - worse) meets its range entirely."""
    best = 1 + (truth[None, :] > truth[:, None]).sum(axis=1)
    worst = truth.size - (truth[None, :] < truth[:, None]).sum(axis=1)
    return bool((low <= best).all() and (high >= worst).all())


def test_paired_ranges_cover_all_true_ranks_together() -> None:
    held = 0
    for trial in range(300):
        table = scores(np.random.default_rng(trial))
        found = paired_ranges(
            table.mean(axis=1), influence_of(table), higher_is_better=True, seed=trial
        )
        held += covers(found.low, found.high, MEANS)
    # 95 % of 300 with ties: between 93.0 % (less than 1 in 20 by chance) and all
    assert held >= 0.93 * 300


def test_unpaired_ranges_cover_all_true_ranks_together() -> None:
    held, degrees = 0, 19
    for trial in range(300):
        generator = np.random.default_rng(trial)
        deviations = np.linspace(0.01, 0.03, MEANS.size)
        values = MEANS + generator.normal(0.0, deviations)
        errors = deviations * np.sqrt(generator.chisquare(degrees, MEANS.size) / degrees)
        found = unpaired_ranges(values, errors, degrees, higher_is_better=True, seed=trial)
        held += covers(found.low, found.high, MEANS)
    assert held >= 0.93 * 300


def test_ties_of_all_runs_are_found_different_in_one_case_of_twenty() -> None:
    found = 0
    for trial in range(400):
        table = np.random.default_rng(trial).normal(size=(5, 80))
        ranges = paired_ranges(table.mean(axis=1), influence_of(table), higher_is_better=True)
        found += bool(ranges.better.any())
    assert 0.025 * 400 <= found <= 0.085 * 400


@pytest.mark.parametrize(("runs", "prompts"), [(20, 20), (12, 60), (4, 240)])
def test_however_few_prompts_there_are_ties_are_rarely_told_apart(runs: int, prompts: int) -> None:
    """5 %, and three standard errors of 300 rounds."""
    found = 0
    for trial in range(300):
        table = np.random.default_rng(trial).normal(size=(runs, prompts))
        ranges = paired_ranges(table.mean(axis=1), influence_of(table), higher_is_better=True)
        found += bool(ranges.better.any())
    assert found <= (0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)) * 300


def test_critical_value_is_that_of_the_studentised_range() -> None:
    """Equal errors with many degrees of freedom are Tukey's case: q / sqrt(2)."""
    ranges = unpaired_ranges(np.zeros(8), np.ones(8), 1e9, higher_is_better=True)
    assert ranges.critical == pytest.approx(
        studentized_range.ppf(0.95, 8, np.inf) / np.sqrt(2.0), rel=0.02
    )


def test_critical_value_of_two_runs_is_students() -> None:
    table = np.random.default_rng(1).normal(size=(2, 12))
    ranges = paired_ranges(table.mean(axis=1), influence_of(table), higher_is_better=True)
    assert ranges.critical == pytest.approx(t_quantile(0.95, 11), rel=0.04)


def test_error_of_a_difference_is_the_clustered_one_of_the_differences() -> None:
    generator = np.random.default_rng(2)
    prompts = np.repeat(np.arange(40), 3)
    one, two = generator.normal(size=(2, 120)) + generator.normal(size=40)[prompts]
    shares = influences(one, prompts, 40) - influences(two, prompts, 40)
    error = np.sqrt(40 / 39 * np.square(shares).sum())
    interval = clustered_mean_interval(one - two, prompts)
    assert t_quantile(0.95, 39) * error == pytest.approx((interval.high - interval.low) / 2)


def test_factor_of_a_mean_scales_its_error() -> None:
    values, prompts = np.random.default_rng(3).normal(size=9), np.arange(9)
    np.testing.assert_allclose(
        influences(values, prompts, 9, factor=-100.0), -100.0 * influences(values, prompts, 9)
    )


@pytest.mark.parametrize("higher", [True, False])
def test_ranges_hold_the_rank_of_the_value_itself(higher: bool) -> None:
    for trial in range(20):
        table = scores(np.random.default_rng(trial), prompts=30)
        values = table.mean(axis=1)
        for found in (
            paired_ranges(values, influence_of(table), higher_is_better=higher),
            unpaired_ranges(values, np.full(values.size, 0.1), 19, higher_is_better=higher),
        ):
            place = places(values, higher_is_better=higher)
            assert (found.low <= place).all()
            assert (place <= found.high).all()


def test_direction_turns_the_ranks_around() -> None:
    table = scores(np.random.default_rng(4))
    up = paired_ranges(table.mean(axis=1), influence_of(table), higher_is_better=True)
    down = paired_ranges(table.mean(axis=1), influence_of(table), higher_is_better=False)
    np.testing.assert_array_equal(up.better, down.better.T)
    np.testing.assert_array_equal(up.low, MEANS.size + 1 - down.high)


def test_ranges_are_those_of_all_orders_that_the_findings_allow() -> None:
    """Brute force: an order is allowed when no run stands before one that is better."""
    from itertools import permutations

    strength = np.array([0.0, 0.2, 0.9, 1.0, 1.6])
    better = strength[:, None] - strength[None, :] > 0.7
    low, high = rank_ranges(better)
    seen: dict[int, set[int]] = {i: set() for i in range(5)}
    for order in permutations(range(5)):
        if not any(better[b, a] for k, a in enumerate(order) for b in order[k + 1 :]):
            for place, run in enumerate(order, start=1):
                seen[run].add(place)
    assert [(min(s), max(s)) for s in seen.values()] == list(zip(low.tolist(), high.tolist()))


def test_two_runs_with_the_same_scores_share_their_rank() -> None:
    table = scores(np.random.default_rng(5))
    table[1] = table[0]
    found = paired_ranges(table.mean(axis=1), influence_of(table), higher_is_better=True)
    assert not found.better[0, 1]
    assert not found.better[1, 0]
    assert (found.low[0], found.high[0]) == (found.low[1], found.high[1])


def test_a_constant_lead_on_every_prompt_is_no_chance() -> None:
    table = scores(np.random.default_rng(6))
    table[1] = table[0] + 0.001
    found = paired_ranges(table.mean(axis=1), influence_of(table), higher_is_better=True)
    assert found.better[1, 0]


def test_error_of_its_own_keeps_a_run_at_its_limit_from_being_certain() -> None:
    """A share of 1 has no spread over prompts, but an interval all the same."""
    marks = np.ones((2, 50))
    marks[1, 0] = 0.0
    values, influence = marks.mean(axis=1), influence_of(marks)
    bare = paired_ranges(values, influence, higher_is_better=True, extra_errors=[0.0, 0.0])
    wide = paired_ranges(values, influence, higher_is_better=True, extra_errors=[0.03, 0.0])
    assert bare.critical == pytest.approx(wide.critical, rel=0.05)
    assert not wide.better.any()


def test_one_run_has_the_first_rank() -> None:
    found = unpaired_ranges([1.0], [0.1], 19, higher_is_better=True)
    assert (found.low.tolist(), found.high.tolist()) == ([1], [1])


def test_one_prompt_says_nothing_of_noise() -> None:
    with pytest.raises(ValueError, match="expected at least 2 prompts, got 1"):
        paired_ranges([1.0, 2.0], np.zeros((2, 1)), higher_is_better=True)
