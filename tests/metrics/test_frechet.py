"""Fréchet distance: closed forms, other people's code, and every trap that gave a wrong number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from evaluator.errors import MetricError
from evaluator.metrics import Moments, frechet_distance, frechet_distance_from_features
from evaluator.metrics import frechet as module
from evaluator.metrics.frechet import ACCURACY, _traces, cholesky, congruent

SEEDS = st.integers(0, 2**31)


def features(seed: int, n: int, dim: int, *, mean: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, dim)) @ generator.normal(size=(dim, dim)) + mean


def orthogonal(generator: np.random.Generator, dim: int) -> np.ndarray:
    return np.linalg.qr(generator.normal(size=(dim, dim))).Q


def plain(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook formula with a general matrix root."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.trace(sqrtm(cov_a @ cov_b).real)
    delta = a.mean(axis=0) - b.mean(axis=0)
    return float(delta @ delta + np.trace(cov_a) + np.trace(cov_b) - 2 * root)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, dim=st.integers(1, 12), zeros=st.integers(0, 4))
def test_commuting_covariances_have_a_closed_form(seed: int, dim: int, zeros: int) -> None:
    generator = np.random.default_rng(seed)
    basis = orthogonal(generator, dim)
    spectra = generator.uniform(0.1, 5.0, size=(2, dim))
    spectra[0, : min(zeros, dim)] = 0.0
    covs = [(basis * spectrum) @ basis.T for spectrum in spectra]
    mean = generator.normal(size=dim)
    expected = ((np.sqrt(spectra[0]) - np.sqrt(spectra[1])) ** 2).sum() + mean @ mean
    got = frechet_distance(mean, covs[0], np.zeros(dim), covs[1])
    assert got == pytest.approx(expected, rel=1e-7 if zeros else 1e-11, abs=1e-11)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, dim=st.integers(1, 10), n=st.integers(2, 40), m=st.integers(2, 40))
def test_it_is_symmetric_and_zero_on_itself(seed: int, dim: int, n: int, m: int) -> None:
    a, b = features(seed, n, dim), features(seed + 1, m, dim, mean=1.0)
    scale = np.square(a).sum() + np.square(b).sum()
    forth, back = frechet_distance_from_features(a, b), frechet_distance_from_features(b, a)
    assert forth == pytest.approx(back, rel=1e-9, abs=1e-12 * scale)
    assert 0.0 <= frechet_distance_from_features(a, a) <= 1e-13 * scale
    assert 0.0 <= frechet_distance_from_features(a, a[::-1].copy()) <= 1e-13 * scale


def test_it_agrees_with_the_matrix_root() -> None:
    a, b = features(0, 300, 24), features(1, 200, 24, mean=0.3)
    assert frechet_distance_from_features(a, b) == pytest.approx(plain(a, b), rel=1e-10)


def test_it_agrees_with_torch_fidelity() -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = features(2, 400, 16), features(3, 500, 16)
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    peer = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance_from_features(a, b) == pytest.approx(peer, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 200), (200, 20), (2, 2), (64, 65)])
def test_few_samples_give_the_same_number_from_features_and_from_moments(n: int, m: int) -> None:
    a, b = features(4, n, 64), features(5, m, 64)
    one, two = Moments.from_features(a), Moments.from_features(b)
    by_moments = frechet_distance(one.mean, one.covariance(), two.mean, two.covariance())
    assert by_moments == pytest.approx(frechet_distance_from_features(a, b), rel=1e-8)


def test_few_samples_of_an_isotropic_space_match_the_projected_closed_form() -> None:
    """Disjoint supports: the covariances' product vanishes, and so does the root."""
    a, b = np.zeros((10, 40)), np.zeros((12, 40))
    generator = np.random.default_rng(6)
    a[:, :20], b[:, 20:] = generator.normal(size=(10, 20)), generator.normal(size=(12, 20))
    delta = a.mean(axis=0) - b.mean(axis=0)
    expected = delta @ delta + a.var(axis=0, ddof=1).sum() + b.var(axis=0, ddof=1).sum()
    assert frechet_distance_from_features(a, b) == pytest.approx(expected, rel=1e-13)
    one, two = Moments.from_features(a), Moments.from_features(b)
    got = frechet_distance(one.mean, one.covariance(), two.mean, two.covariance())
    assert got == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_a_mean_far_above_the_spread_costs_no_digits(offset: float) -> None:
    # multiples of 2^-20 stay exact when the offset is added
    a, b = (np.round(features(seed, 500, 8) * 2**20) / 2**20 for seed in (7, 8))
    shifted = frechet_distance_from_features(a + offset, b + offset)
    assert shifted == pytest.approx(frechet_distance_from_features(a, b), rel=1e-8)


def test_float32_features_are_computed_in_float64() -> None:
    a, b = (features(seed, 100, 6).astype(np.float32) for seed in (9, 10))
    wide = frechet_distance_from_features(a.astype(np.float64), b.astype(np.float64))
    assert frechet_distance_from_features(torch.from_numpy(a), torch.from_numpy(b)) == wide


def test_spread_spectra_take_the_accurate_path() -> None:
    """Squared condition numbers leave the range of float64: roots of eigenvalues would be noise."""
    generator = np.random.default_rng(11)
    basis = orthogonal(generator, 30)
    spectrum = np.logspace(0, -12, 30)
    cov = torch.from_numpy((basis * spectrum) @ basis.T)
    own, root = _traces(cov, cov, ACCURACY)
    assert own == pytest.approx(2 * spectrum.sum(), rel=1e-12)
    assert root == pytest.approx(spectrum.sum(), rel=1e-12)


@pytest.mark.parametrize("dim", [1, 7, 12, 13])
def test_the_triangular_product_is_the_full_one(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    generator = np.random.default_rng(17)
    lower = torch.from_numpy(np.tril(generator.normal(size=(dim, dim))))
    cov = torch.from_numpy(np.cov(generator.normal(size=(dim, 40))).reshape(dim, dim))
    np.testing.assert_allclose(congruent(lower, cov).tril(), (lower.T @ cov @ lower).tril())


def published(seed: int, dim: int, *, rank: int | None = None) -> np.ndarray:
    """A covariance with a spectrum as steep as Inception's, of full rank or less."""
    generator = np.random.default_rng(seed)
    spectrum = np.logspace(0, -6, dim)
    spectrum[dim if rank is None else rank :] = 0.0
    basis = orthogonal(generator, dim)
    cov = (basis * spectrum) @ basis.T
    return (cov + cov.T) / 2


@pytest.mark.parametrize("rank", [None, 40, 1])
def test_covariances_published_in_float32_give_nearly_the_same_number(rank: int | None) -> None:
    dim = 64
    mean, cov, other = np.linspace(0, 1, dim), published(0, dim, rank=rank), published(1, dim)
    exact = frechet_distance(mean, cov, np.zeros(dim), other)
    rounded = cov.astype(np.float32)
    assert (np.linalg.eigvalsh(rounded.astype(np.float64))[0] < -1e-12) == (rank is not None)
    assert frechet_distance(mean, rounded, np.zeros(dim), other) == pytest.approx(exact, rel=1e-4)
    both = frechet_distance(mean, rounded, mean, rounded)
    assert 0.0 <= both < 1e-12 * np.trace(cov)
    assert frechet_distance(mean, rounded, mean, cov) < 1e-5 * np.trace(cov)


def test_rounding_of_float32_is_forgiven_and_no_more() -> None:
    generator = np.random.default_rng(18)
    basis, mean, identity = orthogonal(generator, 8), np.zeros(8), np.eye(8)
    for lowest, forgiven in ((-1e-7, True), (-1e-5, False)):
        spectrum = np.array([lowest, *np.ones(7)])
        cov = (basis * spectrum) @ basis.T
        cov = (cov + cov.T) / 2
        for pair in ((cov, identity), (identity, cov)):
            if forgiven:
                got = frechet_distance(mean, pair[0], mean, pair[1])
                assert got == pytest.approx(1.0, rel=1e-6)
            else:
                with pytest.raises(MetricError, match="got one with the eigenvalue -1e-05"):
                    frechet_distance(mean, pair[0], mean, pair[1])


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, dim=st.integers(1, 6), copies=st.integers(1, 5), kinds=st.integers(1, 4))
def test_duplicates_keep_the_number_real_and_not_negative(
    seed: int, dim: int, copies: int, kinds: int
) -> None:
    base = features(seed, kinds, dim)
    a = np.repeat(base, copies + 1, axis=0)
    b = features(seed + 1, 30, dim)
    got = frechet_distance_from_features(a, b)
    assert isinstance(got, float)
    assert got == pytest.approx(frechet_distance_from_features(b, a), rel=1e-9)
    assert 0.0 <= frechet_distance_from_features(a, a) <= 1e-12 * np.square(a).sum()
    one, two = Moments.from_features(a), Moments.from_features(b)
    assert got == pytest.approx(
        frechet_distance(one.mean, one.covariance(), two.mean, two.covariance()), rel=1e-8
    )


@settings(max_examples=40, deadline=None)
@given(spreads=st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), shift=st.floats(-1e3, 1e3))
def test_one_dimension_has_the_textbook_form(spreads: tuple[float, float], shift: float) -> None:
    got = frechet_distance(
        np.array([shift]), np.array([[spreads[0] ** 2]]), np.zeros(1), np.array([[spreads[1] ** 2]])
    )
    expected = shift**2 + (spreads[0] - spreads[1]) ** 2
    assert got == pytest.approx(expected, rel=1e-9, abs=1e-9 * (spreads[0] + spreads[1]) ** 2)


def test_pivots_of_rounding_noise_are_no_rank() -> None:
    nearly = torch.ones(2, 2, dtype=torch.float64)
    nearly[1, 1] += 4e-16
    assert int(torch.linalg.cholesky_ex(nearly).info) == 0
    assert cholesky(nearly) is None
    assert cholesky(nearly + torch.eye(2)) is not None


def test_constant_features_are_a_rank_zero_covariance() -> None:
    a, b = np.full((5, 3), 2.0), features(12, 50, 3)
    expected = np.square(2.0 - b.mean(axis=0)).sum() + b.var(axis=0, ddof=1).sum()
    assert frechet_distance_from_features(a, b) == pytest.approx(expected, rel=1e-12)
    got = frechet_distance(np.ones(3), np.zeros((3, 3)), np.zeros(3), np.zeros((3, 3)))
    assert got == pytest.approx(3.0)


@pytest.mark.parametrize("dim", [16, 128])
def test_two_samples_of_one_gaussian_differ_by_the_known_bias(dim: int) -> None:
    """E = (d(d+1)/2 + 2d)/N to first order."""
    generator = np.random.default_rng(13)
    n = 40 * dim
    values = [
        frechet_distance_from_features(*generator.normal(size=(2, n, dim)))
        for _ in range(20 if dim < 100 else 2)
    ]
    assert np.mean(values) == pytest.approx((dim * (dim + 1) / 2 + 2 * dim) / n, rel=0.06)


def test_what_is_no_covariance_is_refused() -> None:
    mean, identity = np.zeros(3), np.eye(3)
    indefinite = np.diag([1.0, 1.0, -0.5])
    with pytest.raises(MetricError, match="expected a positive semidefinite matrix"):
        frechet_distance(mean, indefinite, mean, identity)
    with pytest.raises(MetricError, match="cov_b: expected a symmetric matrix"):
        frechet_distance(mean, identity, mean, np.triu(np.ones((3, 3))))
    with pytest.raises(MetricError, match="mean_b: expected dimension 3"):
        frechet_distance(mean, identity, np.zeros(2), np.eye(2))
    with pytest.raises(MetricError, match="a: expected at least 2 samples, got 1"):
        frechet_distance_from_features(np.zeros((1, 3)), np.zeros((5, 3)))
    with pytest.raises(MetricError, match="b: expected finite numbers, got 1"):
        frechet_distance_from_features(np.zeros((2, 1)), np.array([[np.nan], [0.0]]))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, cuts=st.lists(st.integers(0, 50), max_size=6), order=st.randoms())
def test_moments_do_not_depend_on_how_samples_are_split(seed: int, cuts: list[int], order) -> None:
    values = features(seed, 50, 5, mean=1e4)
    parts = np.split(values, sorted(cuts))
    order.shuffle(parts)
    merged = Moments.empty(5)
    for part in parts:
        merged = merged.merge(Moments.from_features(part))
    assert merged.n == 50
    np.testing.assert_allclose(merged.mean, values.mean(axis=0), rtol=1e-14)
    spread = np.abs(np.cov(values, rowvar=False)).max()
    np.testing.assert_allclose(
        merged.covariance(), np.cov(values, rowvar=False), atol=1e-11 * spread, rtol=0
    )


def test_moments_less_a_part_are_those_of_the_rest() -> None:
    values = features(14, 60, 4, mean=100.0)
    whole, part = Moments.from_features(values), Moments.from_features(values[:7])
    rest, expected = whole.without(part), Moments.from_features(values[7:])
    assert rest.n == expected.n
    np.testing.assert_allclose(rest.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(rest.m2, expected.m2, rtol=1e-9, atol=1e-9)
    assert whole.without(whole).n == 0
    with pytest.raises(MetricError, match="expected a part of 7 samples"):
        part.without(whole)
