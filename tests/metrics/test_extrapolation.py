"""FID∞: the line, its subsets, what two samples of one distribution give, and its interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_samples import build, two_sides, whole

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import (
    FrechetInfinity,
    ReferenceMoments,
    fid_infinity,
    frechet_distance_from_features,
    jackknife_groups,
    jackknife_interval,
)
from evaluator.metrics.extrapolation import fitted, reference_sizes, subset_sizes


def standard(dim: int) -> ReferenceMoments:
    """The true moments of N(0, I)."""
    return ReferenceMoments(np.zeros(dim), np.eye(dim), None, None, "the truth")


@pytest.mark.parametrize(("n", "smallest"), [(50_000, 5000), (20_000, 2000), (100, 10), (4, 2)])
def test_subsets_have_the_published_sizes(n: int, smallest: int) -> None:
    sizes = subset_sizes(n)
    published = np.linspace(min(5000, max(n / 10, 2)), n, 15).astype("int32")
    assert list(sizes) == sorted(set(published))
    assert (sizes[0], sizes[-1]) == (smallest, n)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), points=st.integers(3, 15))
def test_the_line_is_that_of_least_squares(seed: int, points: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = np.sort(generator.choice(np.arange(2, 500), points, replace=False))
    values = 3.0 + 40.0 / sizes + 0.1 * generator.normal(size=points)
    fit = fitted(sizes, list(values))
    slope, value = np.polyfit(1.0 / sizes, values, 1)
    assert (fit.value, fit.slope) == pytest.approx((value, slope), rel=1e-8, abs=1e-8)
    assert fit.r_squared == pytest.approx(np.corrcoef(1.0 / sizes, values)[0, 1] ** 2, abs=1e-9)
    exact = fitted(sizes, list(2.0 + 7.0 / sizes))
    assert exact[:3] == pytest.approx((2.0, 7.0, 1.0), rel=1e-9)


@pytest.mark.parametrize("subsample", [False, True])
def test_each_distance_is_that_of_its_subset(subsample: bool) -> None:
    generator = np.random.default_rng(0)
    real, fake = generator.normal(size=(70, 3)), generator.normal(size=(90, 3)) + 0.5
    fit = fid_infinity(real, fake, num_points=5, seed=4, subsample_reference=subsample)
    again = np.random.default_rng(4)
    orders = again.permutation(90), again.permutation(70)
    assert fit.sizes == (9, 29, 49, 69, 90)
    others = [round(n * 70 / 90) for n in fit.sizes] if subsample else [70] * 5
    expected = [
        frechet_distance_from_features(real[orders[1][:m]], fake[orders[0][:n]])
        for n, m in zip(fit.sizes, others)
    ]
    assert fit.distances == pytest.approx(expected, rel=1e-9)
    assert fit == fid_infinity(real, fake, num_points=5, seed=4, subsample_reference=subsample)
    assert fit.value != fid_infinity(real, fake, num_points=5, seed=5).value


def test_samples_of_the_references_own_distribution_extrapolate_to_zero() -> None:
    """E[FD] - FD∞ is (d(d+1)/4 + d)/N from each finite set, to first order."""
    dim, n, m = 16, 1500, 1000
    generator = np.random.default_rng(1)
    fits: dict[str, list] = {"true": [], "whole": [], "cut": []}
    for seed in range(12):
        fake, real = generator.normal(size=(n, dim)), generator.normal(size=(m, dim))
        fits["true"].append(fid_infinity(standard(dim), fake, seed=seed))
        fits["whole"].append(fid_infinity(real, fake, seed=seed))
        fits["cut"].append(fid_infinity(real, fake, seed=seed, subsample_reference=True))
    bias = dim * (dim + 1) / 4 + dim
    values = {name: np.array([fit.value for fit in found]) for name, found in fits.items()}
    noise = {name: 3 * found.std() / len(found) ** 0.5 for name, found in values.items()}
    assert abs(values["true"].mean()) < noise["true"] < 0.4 * bias / n
    assert abs(values["cut"].mean()) < noise["cut"] < 0.3 * bias * (1 / n + 1 / m)
    assert values["whole"].mean() == pytest.approx(bias / m, abs=noise["whole"])
    assert noise["whole"] < 0.4 * bias / m
    slopes = [fit.slope for fit in fits["true"]]
    assert np.mean(slopes) == pytest.approx(bias, rel=0.15)


def test_what_cannot_be_extrapolated_is_refused() -> None:
    with pytest.raises(MetricError, match="fake: expected at least 4 samples, got 3"):
        fid_infinity(np.zeros((5, 2)), np.zeros((3, 2)))
    with pytest.raises(MetricError, match="real: expected at least 2 samples, got 1"):
        fid_infinity(np.zeros((1, 2)), np.eye(5)[:, :2])
    with pytest.raises(MetricError, match="expected features to draw from, got moments of the tru"):
        fid_infinity(standard(2), np.zeros((9, 2)), subsample_reference=True)
    with pytest.raises(ConfigError, match="num_points: expected a whole number of at least 3"):
        fid_infinity(np.zeros((5, 2)), np.zeros((9, 2)), num_points=2)


def test_no_share_of_the_reference_falls_below_two() -> None:
    assert list(reference_sizes(np.array([2, 50, 100]), 10)) == [2, 5, 10]


def filled(metric: FrechetInfinity, **sizes: int) -> FrechetInfinity:
    """The metric with the shared samples."""
    for plan, real in zip(two_sides("fd_infinity_x", **sizes), (False, True), strict=True):
        plan.feed(metric, torch.arange(len(plan.positions)), real=real)
    return metric


@pytest.mark.parametrize("subsample", [False, True])
def test_the_class_says_the_fit_and_gives_the_jackknife_of_its_subsets(subsample: bool) -> None:
    generated, real = two_sides("fd_infinity_x")
    metric = filled(FrechetInfinity(5, num_points=4, groups=3, subsample_reference=subsample))
    (result,) = metric.compute()
    other, fake = real.values, generated.values
    fit = fid_infinity(other, fake, num_points=4, subsample_reference=subsample)
    assert result.value == pytest.approx(fit.value, rel=1e-10)
    assert result.details == pytest.approx(
        {"slope": fit.slope, "r_squared": fit.r_squared, "smallest_n": 9, "n_reference": 70}
    )
    groups = jackknife_groups(generated.clusters, groups=3)
    generator = np.random.default_rng(0)
    order, others = generator.permutation(90), generator.permutation(70)
    replicates = []
    for group in range(3):
        sets = [order[:n][groups[order[:n]] != group] for n in fit.sizes]
        cut = [others[: round(n * 70 / 90)] if subsample else others for n in fit.sizes]
        distances = [frechet_distance_from_features(other[j], fake[i]) for i, j in zip(sets, cut)]
        replicates.append(fitted([len(i) for i in sets], distances).value)
    expected = jackknife_interval(
        fit.value, replicates, np.bincount(groups), covers=result.interval.covers
    )
    assert (result.interval.low, result.interval.high) == pytest.approx(
        (expected.low, expected.high), rel=1e-6
    )
    assert "infinitely many generated samples" in result.interval.covers


def test_the_bias_that_stays_is_said_with_its_number() -> None:
    (result,) = whole("fd_infinity_x").compute()
    stays = f"adds about {result.details['slope'] / 70:.3g} where they vary"
    assert any("the 70 reference samples" in said and stays in said for said in result.warnings)
    (cut,) = filled(FrechetInfinity(5, subsample_reference=True)).compute()
    assert not any("reference samples are finite" in said for said in cut.warnings)
    metric = FrechetInfinity(5)
    metric.use_reference(standard(5))
    two_sides("fd_infinity_x")[0].feed(metric, torch.arange(40), real=False)
    (given_moments,) = metric.compute()
    assert "n_reference" not in given_moments.details
    assert "the number of reference samples is not known" in given_moments.warnings
    assert any("smallest subset has 4 samples for 5 feat" in s for s in given_moments.warnings)


def test_real_features_are_held_only_where_they_are_drawn_from() -> None:
    kept = filled(FrechetInfinity(5, subsample_reference=True))
    summed = filled(FrechetInfinity(5))
    assert (len(kept._joined("real_values")), len(summed._joined("real_values"))) == (70, 0)
    assert int(summed.reference[0]) == 70
    with pytest.raises(MetricError, match="got those of .*'subsample_reference': True"):
        summed.load_state_dict(kept.state_dict())
    with pytest.raises(MetricError, match="which subsample_reference draws from, got moments fr"):
        FrechetInfinity(5, subsample_reference=True).use_reference(standard(5))


@pytest.mark.parametrize("order", [1, 2])
def test_a_drawn_reference_does_not_depend_on_the_order_of_updates(order: int) -> None:
    metrics = [build("fd_infinity_x", subsample_reference=True) for _ in range(2)]
    generator = torch.Generator().manual_seed(order)
    for plan, real in zip(two_sides("fd_infinity_x"), (False, True), strict=True):
        plan.feed(metrics[0], torch.arange(len(plan.positions)), real=real)
        for batch in torch.randperm(len(plan.positions), generator=generator).split(17):
            plan.feed(metrics[1], batch, real=real)
    assert metrics[0].compute() == metrics[1].compute()


@pytest.mark.slow
def test_the_interval_covers_the_distance_of_the_distributions() -> None:
    dim, prompts, runs = 3, 300, 200
    generator = np.random.default_rng(2)
    truth = 0.3**2 * dim + dim * (1.2 - 1.0) ** 2
    inside = 0
    for _ in range(runs):
        # two images a prompt that share half of their variance
        own, shared = (
            generator.normal(size=(prompts, 2, dim)),
            generator.normal(size=(prompts, 1, dim)),
        )
        values = (0.3 + 1.2 * (own + shared) / 2**0.5).reshape(-1, dim)
        metric = FrechetInfinity(dim, num_points=8, groups=10)
        metric.use_reference(standard(dim))
        clusters = torch.arange(prompts).repeat_interleave(2)
        metric.update(torch.from_numpy(values), torch.arange(2 * prompts), clusters)
        interval = metric.compute()[0].interval
        inside += interval.low <= truth <= interval.high
    assert 0.90 <= inside / runs <= 0.99
