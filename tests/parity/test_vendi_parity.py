"""Vendi scores against the authors' package, on the same features."""

from __future__ import annotations

import numpy as np
import pytest
from vendi_score import vendi

from evaluator.metrics import vendi_score

pytestmark = pytest.mark.filterwarnings("ignore:Please import .csr_matrix.:DeprecationWarning")


def directions(n: int, dim: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).gamma(1.0, size=(n, dim))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("q", [1.0, 2.0, 0.5, "inf"])
@pytest.mark.parametrize(("n", "dim"), [(40, 7), (200, 32)])
def test_the_dual_agrees_with_the_package(n: int, dim: int, q: float | str) -> None:
    # theirs normalises nothing in its dual; both take eigenvalues of the (D, D) matrix
    features = directions(n, dim, seed=n)
    assert vendi_score(features, q=q) == pytest.approx(vendi.score_dual(features, q=q), rel=1e-9)


@pytest.mark.parametrize("q", [1.0, 2.0])
@pytest.mark.parametrize(("n", "dim"), [(30, 64), (90, 16)])
def test_the_kernel_agrees_with_the_package(n: int, dim: int, q: float) -> None:
    features = directions(n, dim, seed=n)
    similarities = features @ features.T
    assert vendi_score(features, q=q) == pytest.approx(vendi.score_K(similarities, q=q), rel=1e-9)
