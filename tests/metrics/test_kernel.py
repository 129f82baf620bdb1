"""Kernel distance: against loops, against torch-fidelity, and by its symmetries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import MetricError
from evaluator.metrics import kernel as module
from evaluator.metrics import kernel_distance, kernel_distance_unbiased
from evaluator.metrics.kernel import (
    CUBIC,
    PolynomialKernel,
    Subsets,
    group_sums,
    kernel_sums,
)


def brute_force(a: np.ndarray, b: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    n, m = len(a), len(b)
    within_a = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j)
    within_b = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j)
    cross = sum(kernel(x, y) for x in a for y in b)
    return within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2 * cross / (n * m)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 12), m=st.integers(2, 12))
def test_the_full_sample_distance_is_that_of_the_loops(seed: int, n: int, m: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=(n, 3)), generator.normal(size=(m, 3)) + 1
    got = kernel_distance_unbiased(a, b)
    assert got == pytest.approx(brute_force(a, b), rel=1e-10, abs=1e-10)
    assert got == pytest.approx(kernel_distance_unbiased(b, a), rel=1e-10, abs=1e-10)
    shuffled = kernel_distance_unbiased(generator.permutation(a), generator.permutation(b))
    assert got == pytest.approx(shuffled, rel=1e-10, abs=1e-10)


def test_chunks_do_not_change_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(70, 5)), generator.normal(size=(50, 5))
    whole = kernel_distance_unbiased(a, b)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 300)
    assert kernel_distance_unbiased(a, b) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("chunk", [100, 1 << 22])
def test_leaving_out_a_group_is_computing_without_it(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk)
    generator = np.random.default_rng(1)
    a, b = (torch.from_numpy(generator.normal(size=(n, 4))) for n in (40, 30))
    groups = generator.integers(0, 5, size=40)
    sums = group_sums(a, b, groups, 5, CUBIC)
    assert sums.unbiased() == pytest.approx(kernel_distance_unbiased(a, b), rel=1e-10)
    for group in range(5):
        rest = kernel_distance_unbiased(a[torch.from_numpy(groups != group)], b)
        assert sums.unbiased(leave_out=group) == pytest.approx(rest, rel=1e-10)


def test_one_subset_of_everything_is_the_full_sample_distance() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.normal(size=(2, 60, 4))
    mean, std = kernel_distance(a, b, num_subsets=3, subset_size=60)
    assert mean == pytest.approx(kernel_distance_unbiased(a, b), rel=1e-10)
    assert std == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("chunk", [50, 1 << 20])
def test_subsets_from_all_pairs_are_those_computed_one_by_one(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(6)
    a, b = generator.normal(size=(60, 4)), generator.normal(size=(50, 4)) + 0.2
    subsets = Subsets.drawn(60, 50, 7, 20, 3)
    by_hand = [
        kernel_distance_unbiased(a[x], b[y])
        for x, y in zip(subsets.first, subsets.second, strict=True)
    ]
    assert all(len(set(chosen)) == 20 for chosen in subsets.first)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", chunk)
    # 7 subsets of 20 cost less than all pairs, 70 cost more; the first 7 are the same
    few = kernel_distance(a, b, num_subsets=7, subset_size=20, seed=3)
    assert few == pytest.approx((np.mean(by_hand), np.std(by_hand)), rel=1e-10)
    tensors = torch.from_numpy(a), torch.from_numpy(b)
    _, together = kernel_sums(*tensors, np.zeros(60, np.int64), 1, CUBIC, subsets)
    assert together == pytest.approx(few, rel=1e-10)
    assert 70 * 20**2 >= (60 + 50) ** 2 / 4 > 7 * 20**2
    many = Subsets.drawn(60, 50, 70, 20, 3)
    by_hand = [kernel_distance_unbiased(a[x], b[y]) for x, y in zip(many.first, many.second)]
    got = kernel_distance(a, b, num_subsets=70, subset_size=20, seed=3)
    assert got == pytest.approx((np.mean(by_hand), np.std(by_hand)), rel=1e-10)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_the_kernel_is_the_power_it_says(degree: int) -> None:
    generator = np.random.default_rng(7)
    x, y = generator.normal(size=(4, 3)), generator.normal(size=(5, 3))
    kernel = PolynomialKernel(degree, gamma=0.7, coef=-0.3)
    got = kernel(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(got, (0.7 * (x @ y.T) - 0.3) ** degree, rtol=1e-12, atol=1e-14)


def test_it_agrees_with_torch_fidelity_within_the_noise_of_its_subsets() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    generator = torch.Generator().manual_seed(3)
    a = torch.randn(600, 16, generator=generator, dtype=torch.float64)
    b = torch.randn(700, 16, generator=generator, dtype=torch.float64) + 0.3
    peer = kid_features_to_metric(a, b, kid_subset_size=300, kid_subsets=50, verbose=False)
    peer_mean = peer["kernel_inception_distance_mean"]
    peer_std = peer["kernel_inception_distance_std"]
    mean, std = kernel_distance(a, b, num_subsets=50, subset_size=300)
    assert mean == pytest.approx(peer_mean, abs=4 * peer_std / 50**0.5)
    assert std == pytest.approx(peer_std, rel=0.5)


def test_torch_fidelitys_own_subsets_give_its_own_number() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    generator = torch.Generator().manual_seed(4)
    a, b = (torch.randn(80, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    peer = kid_features_to_metric(
        a, b, kid_subset_size=80, kid_subsets=1, rng_seed=1, verbose=False
    )["kernel_inception_distance_mean"]
    assert kernel_distance_unbiased(a, b) == pytest.approx(peer, rel=1e-9, abs=1e-12)


def test_it_is_unbiased_seeded_and_sees_a_shift() -> None:
    generator = np.random.default_rng(5)
    same = [kernel_distance_unbiased(*generator.normal(size=(2, 100, 4))) for _ in range(200)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 200**0.5
    a, b = generator.normal(size=(2, 100, 4))
    again = [kernel_distance(a, b, num_subsets=5, subset_size=50, seed=s) for s in (0, 0, 1)]
    assert again[0] == again[1] != again[2]
    assert kernel_distance_unbiased(a, b + 1.0) > 10 * abs(np.mean(same))


def test_impossible_subsets_are_refused() -> None:
    a = np.zeros((10, 2))
    with pytest.raises(MetricError, match="1 subset of 2 to 10 samples, got 100 of 1000"):
        kernel_distance(a, a)
    with pytest.raises(MetricError, match="b: expected 2 features as in a, got 3"):
        kernel_distance_unbiased(a, np.zeros((10, 3)))
