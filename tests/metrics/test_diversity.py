"""Vendi score: closed forms, the values of its authors, and the two sizes of one matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import VendiScore, vendi_score
from evaluator.metrics.catalog import resolve

ORDERS = [0.1, 0.5, 0.999, 1.0, 1.0 + 1e-9, 2.0, 50.0, math.inf]


def brute_force(values: np.ndarray, q: float) -> float:
    units = values / np.linalg.norm(values, axis=1, keepdims=True)
    shares = np.linalg.eigvalsh(units @ units.T / len(units))
    shares = shares[shares > 1e-12]
    if q == 1.0:
        return float(np.exp(-(shares * np.log(shares)).sum()))
    if math.isinf(q):
        return float(1 / shares.max())
    return float((shares**q).sum() ** (1 / (1 - q)))


@pytest.mark.parametrize("q", ORDERS)
def test_orthogonal_samples_all_count_and_equal_ones_count_once(q: float) -> None:
    assert vendi_score(np.eye(7) * 3.0, q=q) == pytest.approx(7.0, rel=1e-12)
    assert vendi_score(np.eye(7, 20), q=q) == pytest.approx(7.0, rel=1e-12)
    assert vendi_score(np.full((9, 4), 0.3), q=q) == pytest.approx(1.0, rel=1e-12)
    assert vendi_score(np.full((4, 9), 0.3), q=q) == pytest.approx(1.0, rel=1e-12)
    assert vendi_score(np.repeat(np.eye(5), 40, axis=0), q=q) == pytest.approx(5.0, rel=1e-10)


def test_the_readme_of_its_authors_gives_these_values() -> None:
    points = np.array([0, 0, 10, 10, 20, 20])
    kernels = [
        (np.exp(-np.abs(points[:, None] - points)), 2.9999),
        (np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]), 2.1573),
    ]
    for kernel, expected in kernels:
        # rows of a root of the kernel are unit vectors with these cosines
        eigenvalues, vectors = np.linalg.eigh(kernel)
        root = vectors * np.sqrt(eigenvalues.clip(min=0))
        assert vendi_score(root) == pytest.approx(expected, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 25), dim=st.integers(2, 25))
def test_either_matrix_gives_the_number_of_the_direct_formula(seed: int, n: int, dim: int) -> None:
    values = np.random.default_rng(seed).normal(size=(n, dim))
    for q in (0.5, 0.9, 1.0, 1.3, 2.0, math.inf):
        got = vendi_score(values, q=q)
        assert got == pytest.approx(brute_force(values, q), rel=1e-6)
        # all samples twice: the same shares, from the other matrix where n < D <= 2n
        assert got == pytest.approx(vendi_score(np.tile(values, (2, 1)), q=q), rel=1e-6)
        padded = np.pad(values, ((0, 0), (0, n)))
        assert got == pytest.approx(vendi_score(padded, q=q), rel=1e-6)


def test_it_falls_with_the_order_and_grows_with_the_spread() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(100, 12)) + 0.5
    scores = [vendi_score(values, q=q) for q in ORDERS]
    assert scores == sorted(scores, reverse=True)
    assert scores[2] == pytest.approx(scores[3], rel=1e-2)
    assert scores[4] == pytest.approx(scores[3], rel=1e-8)
    spread = [vendi_score(generator.normal(size=(300, 8)) * s + 1) for s in (0.01, 0.3, 3.0)]
    assert spread == sorted(spread)
    assert vendi_score(generator.permutation(values)) == pytest.approx(scores[3], rel=1e-12)


def test_lengths_do_not_matter_and_none_at_all_is_refused() -> None:
    values = np.random.default_rng(1).normal(size=(30, 4))
    assert vendi_score(values * 1e-200) == pytest.approx(vendi_score(values), rel=1e-12)
    values[3] = 0.0
    with pytest.raises(MetricError, match="features: expected features other than zero.* got 1"):
        vendi_score(values)
    with pytest.raises(ConfigError, match="q: expected a number above 0"):
        vendi_score(values, q=0.0)


def test_few_samples_constant_features_and_zeros_are_said() -> None:
    values = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    values[:, 2] = 1.0
    metric = VendiScore(6)
    metric.update(values, torch.arange(20), torch.arange(20))
    said = " ".join(metric.compute()[0].warnings)
    assert "the score rises with the number of samples" in said
    assert "1 of 6 features are constant over the generated samples" in said
    metric.update(torch.zeros(1, 6), torch.tensor([20]), torch.tensor([20]))
    (result,) = metric.compute()
    assert result.value is None
    assert "generated: expected features other than zero" in result.warnings[0]


def test_what_is_said_of_two_runs_that_differ_in_their_score_alone_is_one_sentence() -> None:
    said = []
    for seed in range(2):
        metric = VendiScore(6)
        values = torch.randn(20, 6, generator=torch.Generator().manual_seed(seed))
        metric.update(values, torch.arange(20), torch.arange(20))
        (result,) = metric.compute()
        said.append((result.warnings, result.value))
    assert said[0][0] == said[1][0] != []
    assert said[0][1] != said[1][1]


def test_a_configuration_may_spell_infinity() -> None:
    assert resolve("vendi_x", options={"q": "inf"}).build(4).q == "inf"
    values = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    metric = VendiScore(4, q="inf", groups=0)
    metric.update(values, torch.arange(9), torch.arange(9))
    assert metric.compute()[0].value == vendi_score(values, q=math.inf)
