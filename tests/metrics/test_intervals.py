"""Intervals: textbook cases, and how often they hold the truth when the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluator.errors import MetricError
from evaluator.metrics import (
    PrecisionRecallDensityCoverage,
    clustered_mean_interval,
    clustered_share_interval,
    grouped_jackknife,
    jackknife_groups,
    jackknife_interval,
    precision_recall_density_coverage,
    resolve,
)


def test_one_sample_a_prompt_gives_the_textbook_t_interval() -> None:
    values = np.random.default_rng(0).normal(size=37)
    low, high = stats.t.interval(0.9, 36, loc=values.mean(), scale=stats.sem(values))
    interval = clustered_mean_interval(values, np.arange(37), level=0.9)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)
    assert interval.level == 0.9
    assert "prompts" in interval.covers


def test_copies_of_a_sample_within_its_prompt_add_no_confidence() -> None:
    values = np.random.default_rng(1).normal(size=20)
    once = clustered_mean_interval(values, np.arange(20))
    copied = clustered_mean_interval(np.repeat(values, 8), np.repeat(np.arange(20), 8))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), rel=1e-12)


def test_the_jackknife_of_a_mean_is_the_t_interval_of_the_group_means() -> None:
    values = np.random.default_rng(2).normal(size=200)
    clusters = np.arange(200)
    interval = grouped_jackknife(lambda i: float(values[i].mean()), clusters, covers="it")
    groups = jackknife_groups(clusters)
    means = [values[groups == group].mean() for group in range(20)]
    low, high = stats.t.interval(0.95, 19, loc=np.mean(means), scale=stats.sem(means))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-10)


def test_a_bias_of_order_one_over_n_does_not_widen_unequal_groups() -> None:
    """θ(n) = 1 + 5/n has no sampling noise, so the interval has no width."""
    sizes = np.array([10, 30, 25, 7, 28])
    n = sizes.sum()
    interval = jackknife_interval(1 + 5 / n, 1 + 5 / (n - sizes), sizes, covers="it")
    assert interval.high - interval.low == pytest.approx(0.0, abs=1e-10)


def test_bounds_cut_the_interval() -> None:
    interval = jackknife_interval(0.99, [0.9, 1.0, 0.8], [5, 5, 5], covers="it", bounds=(0, 1))
    assert interval.high == 1.0
    assert interval.low >= 0.0


@settings(max_examples=30, deadline=None)
@given(
    groups=st.integers(2, 30), blocks=st.integers(1, 20), seed=st.integers(0, 2**31),
    order=st.randoms(),
)  # fmt: skip
def test_groups_are_even_and_known_from_the_prompt_number_alone(
    groups: int, blocks: int, seed: int, order
) -> None:
    clusters = np.arange(groups * blocks)
    dealt = jackknife_groups(clusters, groups=groups, seed=seed)
    assert (np.bincount(dealt, minlength=groups) == blocks).all()
    chosen = np.array(order.sample(list(clusters), k=len(clusters) // 2))
    np.testing.assert_array_equal(jackknife_groups(chosen, groups=groups, seed=seed), dealt[chosen])


def test_groups_do_not_line_up_with_a_period_and_change_with_the_seed() -> None:
    dealt = jackknife_groups(np.arange(2000))
    counts = np.histogram2d(dealt, np.arange(2000) % 20, bins=20)[0]
    assert stats.chi2_contingency(counts).pvalue > 1e-3
    assert (dealt != jackknife_groups(np.arange(2000), seed=1)).mean() > 0.8


def test_too_few_prompts_are_refused() -> None:
    with pytest.raises(MetricError, match="at least 2 prompts, got 1"):
        clustered_mean_interval([1.0, 2.0], [3, 3])
    with pytest.raises(MetricError, match="at least 2 groups of prompts, got 1"):
        grouped_jackknife(lambda i: 0.0, [4, 4], covers="it")
    with pytest.raises(MetricError, match="prompt numbers from 0, got -1"):
        jackknife_groups([-1, 2])


def covered(spec: str, n: int, per_prompt: int, dim: int, repeats: int, **options) -> np.ndarray:
    """Share of repeats in which each result's interval holds the mean over repeats."""
    generator = np.random.default_rng(0)
    plan = resolve(spec, options=options)
    real = torch.from_numpy(generator.normal(size=(1000, dim)))
    results = []
    for _ in range(repeats):
        shared = generator.normal(size=(n // per_prompt, 1, dim))
        own = generator.normal(size=(n // per_prompt, per_prompt, dim))
        fake = torch.from_numpy(0.2 + 0.74 * (shared + own).reshape(n, dim))
        metric = plan.build(dim)
        values = torch.tanh(fake[:, 0]) if plan.input == "text_cosine" else fake
        metric.update(values, torch.arange(n), torch.arange(n) // per_prompt)
        if plan.reference:
            metric.update(real, torch.arange(1000), torch.arange(1000), real=True)
        results.append(metric.compute())
    truth = np.mean([[r.value for r in repeat] for repeat in results], axis=0)
    held = [
        [r.interval.low <= t <= r.interval.high for r, t in zip(repeat, truth, strict=True)]
        for repeat in results
    ]
    return np.mean(held, axis=0)


@pytest.mark.parametrize("per_prompt", [1, 5])
def test_the_interval_of_a_mean_covers(per_prompt: int) -> None:
    assert 0.91 <= covered("clip_score", 200, per_prompt, 1, 500)[0] <= 0.98


def test_the_interval_of_the_frechet_distance_covers_its_expectation_at_n() -> None:
    assert 0.88 <= covered("fd_x", 300, 3, 8, 100)[0] <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("per_prompt", [1, 5])
@pytest.mark.parametrize(
    ("spec", "options", "repeats"),
    [
        ("fd_x", {}, 400),
        ("is_x", {}, 400),
        ("kd_x", {"num_subsets": 20, "subset_size": 200}, 300),
        ("prdc_x", {}, 300),
        ("authpct_x", {}, 150),
        ("cmmd_x", {}, 150),
        ("vendi_x", {}, 150),
    ],
)
def test_intervals_of_set_metrics_cover_their_expectation_at_n(
    spec: str, options: dict, repeats: int, per_prompt: int
) -> None:
    shares = covered(spec, 500, per_prompt, 8, repeats, **options)
    assert (shares >= 0.89).all(), shares


@pytest.mark.parametrize("name", ["memorized_fraction_x", "rp_score_x"])
def test_intervals_of_copies_cover_their_rate(name: str) -> None:
    """A known share of the samples are copies; a prompt's samples share their fate in part."""
    generator, inside = np.random.default_rng(3), 0
    train = generator.normal(size=(160, 16))
    clusters, places = np.arange(160) // 4, torch.arange(160)
    for _ in range(200):
        copied = generator.random(160) < generator.beta(1.0, 3.0, 40)[clusters]
        made = np.where(copied[:, None], 2.0 * train, generator.normal(size=(160, 16)))
        metric = resolve(name, options={"threshold": 0.99}).build(16)
        metric.update(torch.from_numpy(made), places, torch.from_numpy(clusters))
        metric.update(torch.from_numpy(train), places, torch.from_numpy(clusters), real=True)
        result = metric.compute()[0]
        assert result.value == copied.mean()
        inside += result.interval.low <= 0.25 <= result.interval.high
    assert 0.9 <= inside / 200 <= 1.0


@pytest.mark.parametrize(("rate", "spread"), [(0.0, 0.0), (0.02, 0.0), (0.1, 0.3), (0.5, 0.2)])
def test_share_intervals_cover_at_least_their_level(rate: float, spread: float) -> None:
    """Prompts have rates of their own (Beta); the exact interval may cover more, never less."""
    generator = np.random.default_rng(7)
    clusters, inside = np.arange(160) // 4, 0
    for _ in range(400):
        chances = np.full(40, rate)
        if spread:
            chances = generator.beta(rate * (1 / spread - 1), (1 - rate) * (1 / spread - 1), 40)
        marks = generator.random(160) < chances[clusters]
        interval = clustered_share_interval(marks, clusters)
        assert interval.low < interval.high
        inside += interval.low <= rate <= interval.high
    assert inside / 400 >= 0.93


def test_independent_samples_give_the_exact_interval_of_clopper_and_pearson() -> None:
    from scipy.stats import binomtest

    for marked in (0, 1, 7, 30):
        marks = np.arange(30) < marked
        interval = clustered_share_interval(marks, np.arange(30))
        exact = binomtest(marked, 30).proportion_ci(0.95)
        # of single samples the cluster-robust variance is p(1-p)/(n-1): one sample fewer
        assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high), abs=0.012)
    alike = clustered_share_interval(np.repeat([True, False, False], 10), np.repeat([0, 1, 2], 10))
    assert alike.high - alike.low > 0.85


@pytest.mark.parametrize(("made_at", "coverage", "recall"), [(0.0, 1.0, None), (50.0, 0.0, 0.0)])
def test_a_coverage_or_recall_that_no_group_changes_has_no_interval(
    made_at: float, coverage: float, recall: float | None
) -> None:
    generator = np.random.default_rng(0)
    metric = PrecisionRecallDensityCoverage(4)
    for values, side in (
        (made_at + generator.normal(size=(2000, 4)), False),
        (generator.normal(size=(100, 4)), True),
    ):
        names = torch.arange(len(values))
        metric.update(torch.from_numpy(values), names, names, real=side)
    found = {result.name: result for result in metric.compute()}
    assert found["coverage"].value == coverage
    assert found["recall"].value == (recall if recall is not None else found["recall"].value)
    for name in ("coverage", *(["recall"] if recall is not None else [])):
        assert found[name].interval is None
        assert any("no interval: leaving any group" in text for text in found[name].warnings)
    assert found["precision"].interval is not None
    assert not any("no interval" in text for text in found["precision"].warnings)


def test_a_precision_of_one_is_not_certain() -> None:
    generator = np.random.default_rng(0)
    real = generator.normal(size=(300, 8))
    expected = precision_recall_density_coverage(real, 0.7 * generator.normal(size=(5000, 8)))
    covered = 0
    for _ in range(20):
        metric = PrecisionRecallDensityCoverage(8)
        for values, side in ((0.7 * generator.normal(size=(40, 8)), False), (real, True)):
            names = torch.arange(len(values))
            metric.update(torch.from_numpy(values), names, names, real=side)
        found = metric.compute()[0]
        assert found.interval is not None
        if found.value == 1.0:
            # 40 of 40: the far end of Clopper and Pearson
            assert found.interval.low == pytest.approx(0.025 ** (1 / 40))
            assert found.interval.high == 1.0
        covered += found.interval.low <= expected.precision <= found.interval.high
    assert 0.99 < expected.precision < 1.0
    assert covered >= 18
