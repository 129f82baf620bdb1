"""Distances to one Gaussian are `frechet_distance`, whatever the number of samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluator.metrics import frechet_distance, frechet_distance_from_features
from evaluator.metrics.fixed_gaussian import FixedGaussian
from evaluator.metrics.moments import Moments

DIM = 48


def features(seed: int, n: int, *, steep: float = 4.0, rank: int = DIM) -> np.ndarray:
    """(n, DIM) float32 with variances over `steep` decades, in `rank` dimensions."""
    scales = np.logspace(0, -steep / 2, DIM) * (np.arange(DIM) < rank)
    values = np.random.default_rng(seed).normal(size=(n, DIM)) * scales + 0.1 * scales
    turned = np.linalg.qr(np.random.default_rng(5).normal(size=(DIM, DIM)))[0]
    return (values @ turned).astype(np.float32)


def fixed(reference: np.ndarray) -> FixedGaussian:
    moments = Moments.from_features(reference)
    return FixedGaussian(moments.mean, moments.covariance())


@pytest.mark.parametrize("n", [2, 12, 40, 44, 48, 49, 60, 400])
@pytest.mark.parametrize("steep", [1.0, 6.0])
def test_the_distance_is_that_of_the_features(n: int, steep: float) -> None:
    a, b = features(1, n, steep=steep), features(2, 300, steep=steep)
    found = fixed(b).distance(Moments.from_features(a))
    assert found == pytest.approx(frechet_distance_from_features(a, b), rel=1e-8)


@pytest.mark.parametrize("n", [6, 30, 43, 45, 49, 70, 400])
def test_distances_without_each_part_are_those_of_the_others(n: int) -> None:
    a, b = features(1, n), features(2, 300)
    groups = np.arange(n) % 5
    parts = [Moments.from_features(a[groups == group]) for group in range(5)]
    found = list(fixed(b).distances_without(Moments.from_features(a), parts, accuracy=1e-6))
    expected = [frechet_distance_from_features(a[groups != group], b) for group in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_copies_of_few_samples_span_less_than_their_number() -> None:
    a, b = np.repeat(features(1, 6), 5, axis=0), features(2, 300)
    parts = [Moments.from_features(a[:5]), Moments.from_features(a[5:10])]
    found = list(fixed(b).distances_without(Moments.from_features(a), parts, accuracy=1e-6))
    expected = [
        frechet_distance_from_features(a[np.r_[: 5 * k, 5 * k + 5 : 30]], b) for k in (0, 1)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("n", [10, 400])
def test_a_reference_of_low_rank_is_no_exception(n: int) -> None:
    a, b = features(1, n), features(2, 300, rank=20)
    reference = fixed(b)
    assert reference._lower is None
    found = reference.distance(Moments.from_features(a))
    assert found == pytest.approx(frechet_distance_from_features(a, b), rel=1e-8)
    parts = [Moments.from_features(a[:3])]
    (without,) = reference.distances_without(Moments.from_features(a), parts)
    assert without == pytest.approx(frechet_distance_from_features(a[3:], b), rel=1e-8)


def test_samples_that_are_all_alike_have_the_distance_of_a_point() -> None:
    a, b = np.repeat(features(1, 1), 9, axis=0), features(2, 300)
    whole, reference = Moments.from_features(a), fixed(b)
    gap = whole.mean - reference.mean
    expected = float(gap @ gap + reference.covariance.trace())
    assert reference.distance(whole) == pytest.approx(expected, rel=1e-12)
    (without,) = reference.distances_without(whole, [Moments.from_features(a[:2])])
    assert without == pytest.approx(expected, rel=1e-12)


def test_spectra_too_steep_for_eigenvalues_take_the_accurate_path() -> None:
    turned = np.linalg.qr(np.random.default_rng(5).normal(size=(DIM, DIM)))[0]
    cov = torch.from_numpy((turned * np.logspace(0, -12, DIM)) @ turned.T)
    moments = Moments(1000, torch.zeros(DIM, dtype=torch.float64), cov * 999)
    found = FixedGaussian(moments.mean, 2.0 * cov).distance(moments)
    slowly = frechet_distance(moments.mean, cov, moments.mean, 2.0 * cov, accuracy=0.0)
    assert found == pytest.approx(slowly, rel=1e-9)
    assert found == pytest.approx(float(cov.trace()) * (2.0**0.5 - 1.0) ** 2, rel=1e-9)
