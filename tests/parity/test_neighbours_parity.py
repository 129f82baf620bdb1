"""Precision, recall, density, coverage, realism and Vendi score against peers on the same features.

Everything agrees to 1e-12 or exactly, with two exceptions, both of the peers' rounding:

- torch-fidelity returns shares through float32 means: they agree to 1e-7, and as counts exactly.
- torch-fidelity and prdc take distances from a matrix product, which misplaces points on the rim
  of a ball (copies, lattices). There the direct formula is the judge; see `tests/metrics`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluator.metrics import (
    authpct,
    memorized_fraction,
    precision_recall_density_coverage,
    realism_scores,
    vendi_score,
)


def features(seed: int, n: int, m: int, dim: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping sets with a common offset, as a network's activations have."""
    generator = np.random.default_rng(seed)
    scales = generator.gamma(1.0, 1.0, size=dim) + 0.05
    real, fake = (generator.normal(size=(size, dim)) * scales + 0.4 for size in (n, m))
    return real.astype(dtype), (0.95 * fake + 0.05).astype(dtype)


SIZES = [(300, 250, 16, np.float64), (200, 260, 64, np.float32), (120, 90, 300, np.float64)]


@pytest.mark.parametrize(("n", "m", "dim", "dtype"), SIZES)
@pytest.mark.parametrize("k", [3, 5])
def test_prdc_gives_the_same_four_numbers(n: int, m: int, dim: int, dtype: type, k: int) -> None:
    from prdc import compute_prdc

    real, fake = features(0, n, m, dim, dtype)
    peer = compute_prdc(real.astype(np.float64), fake.astype(np.float64), nearest_k=k)
    ours = precision_recall_density_coverage(real, fake, k=k)
    assert ours._asdict() == pytest.approx(peer, rel=1e-12)


def test_our_defaults_are_those_of_prdc() -> None:
    real, fake = features(1, 200, 200, 16, np.float64)
    assert precision_recall_density_coverage(real, fake) == precision_recall_density_coverage(
        real, fake, k=5, inclusive=False
    )


@pytest.mark.parametrize(("n", "m", "dim", "dtype"), SIZES)
def test_torch_fidelity_gives_the_same_precision_and_recall(
    n: int, m: int, dim: int, dtype: type
) -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, fake = features(2, n, m, dim, dtype)
    peer = prc_features_to_metric(
        torch.from_numpy(fake.astype(np.float64)),
        torch.from_numpy(real.astype(np.float64)),
        prc_neighborhood=3,
        prc_batch_size=64,
        save_cpu_ram=False,
        verbose=False,
    )
    ours = precision_recall_density_coverage(real, fake, k=3, inclusive=True)
    for name, count in (("precision", m), ("recall", n)):
        assert getattr(ours, name) == pytest.approx(peer[name], abs=1e-7)
        assert round(getattr(ours, name) * count) == round(peer[name] * count)


def test_the_rim_of_a_ball_is_where_the_conventions_differ() -> None:
    """Eight copies of everything: all rims. Only the inclusive convention finds the copies."""
    real = np.repeat(np.random.default_rng(3).normal(size=(30, 5)), 8, axis=0)
    strict = precision_recall_density_coverage(real, real, k=5)
    inclusive = precision_recall_density_coverage(real, real, k=3, inclusive=True)
    assert (strict.precision, strict.recall) == (0.0, 0.0)
    assert (inclusive.precision, inclusive.recall) == (1.0, 1.0)


@pytest.mark.parametrize(("n", "m", "dim", "dtype"), SIZES)
def test_scikit_learn_finds_the_same_neighbours(n: int, m: int, dim: int, dtype: type) -> None:
    from sklearn.neighbors import NearestNeighbors

    real, fake = (x.astype(np.float64) for x in features(4, n, m, dim, dtype))
    trees = NearestNeighbors(n_neighbors=4, algorithm="kd_tree").fit(real)
    own = trees.kneighbors(real)[0]
    apart, index = (found[:, 0] for found in trees.kneighbors(fake, n_neighbors=1))
    assert authpct(real, fake) == pytest.approx(100 * (apart > own[index, 1]).mean(), rel=1e-12)
    small = own[:, 3] < np.median(own[:, 3])
    ratios = own[small, 3] / np.linalg.norm(fake[:, None] - real[small], axis=2)
    assert realism_scores(real, fake, k=3) == pytest.approx(ratios.max(axis=1), rel=1e-12)
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (fake, real)]
    apart = NearestNeighbors(n_neighbors=1).fit(units[1]).kneighbors(units[0])[0][:, 0]
    expected = (1.0 - apart**2 / 2.0 > 0.3).mean()
    assert memorized_fraction(real, fake, threshold=0.3) == expected


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0, np.inf])
def test_the_vendi_score_of_orthogonal_families_is_the_number_of_families(q: float) -> None:
    """n copies each of m orthogonal directions: m, whatever the order and the lengths."""
    generator = np.random.default_rng(5)
    for dim, copies in ((6, 9), (40, 2)):
        axes = np.linalg.qr(generator.normal(size=(dim, 6)))[0].T
        samples = np.repeat(axes, copies, axis=0) * generator.uniform(0.1, 9.0, (6 * copies, 1))
        assert vendi_score(samples, q=q) == pytest.approx(6.0, rel=1e-9)


def test_the_vendi_score_of_two_angles_is_the_closed_form() -> None:
    """Two samples with cosine c: eigenvalues (1 ± c) / 2."""
    for cosine in (0.0, 0.3, 0.9, 0.999):
        pair = np.array([[1.0, 0.0], [cosine, np.sqrt(1.0 - cosine**2)]])
        shares = np.array([(1.0 + cosine) / 2.0, (1.0 - cosine) / 2.0])
        assert vendi_score(pair) == pytest.approx(
            np.exp(-(shares * np.log(shares)).sum()), rel=1e-9
        )
        assert vendi_score(pair, q=2.0) == pytest.approx(1.0 / np.square(shares).sum(), rel=1e-12)
