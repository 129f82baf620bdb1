"""AuthPct: copies, far samples, and the direct formula with its ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import MetricError
from evaluator.metrics import AuthPct, authpct
from evaluator.metrics import distances as module


def brute_force(train: np.ndarray, generated: np.ndarray) -> float:
    def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.stack([np.square(row - b).sum(axis=1) for row in a])

    own = squared(train, train)
    np.fill_diagonal(own, np.inf)
    between = squared(generated, train)
    return 100 * float((between.min(axis=1) > own.min(axis=1)[between.argmin(axis=1)]).mean())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    side=st.integers(1, 6),
    unit=st.sampled_from([1.0, 0.1]),
    offset=st.sampled_from([0.0, 1e4, 1e7]),
)
def test_ties_and_duplicates_are_decided_as_by_the_direct_formula(
    seed: int, side: int, unit: float, offset: float
) -> None:
    generator = np.random.default_rng(seed)
    train, new = (generator.integers(0, side, size=(n, 2)) * unit + offset for n in (30, 20))
    assert authpct(train, new) == pytest.approx(brute_force(train, new), rel=1e-12)


def test_copies_give_0_and_far_samples_100(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    train, new = generator.normal(size=(2, 200, 6))
    assert authpct(train, train) == 0.0
    assert authpct(train, train + 1e-6) == 0.0
    assert authpct(train, new + 50.0) == 100.0
    whole = authpct(train, new)
    assert 0.0 < whole < 100.0
    assert authpct(generator.permutation(train), generator.permutation(new)) == whole
    monkeypatch.setattr(module, "BLOCK", 7)
    assert authpct(train, new) == whole == pytest.approx(brute_force(train, new))


def test_one_training_sample_is_refused() -> None:
    with pytest.raises(MetricError, match="train: expected at least 2 samples, got 1"):
        authpct(np.zeros((1, 2)), np.zeros((3, 2)))


def test_an_interval_of_no_width_and_constant_features_are_said() -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randn(40, 3, generator=generator)
    train[:, 1] = 0.5
    metric = AuthPct(3)
    for side in (False, True):
        metric.update(train, torch.arange(40), torch.arange(40), real=side)
    (result,) = metric.compute()
    assert (result.value, result.interval.low, result.interval.high) == (0.0, 0.0, 0.0)
    said = " ".join(result.warnings)
    assert "shows no uncertainty" in said
    assert "1 of 3 features are constant over the reference samples" in said
