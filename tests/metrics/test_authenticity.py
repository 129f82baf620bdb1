"""AuthPct: copies, far samples, and the direct formula with its ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import MetricError
from evaluator.metrics import AuthPct, Result, authpct
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


def said_by(metric: AuthPct) -> tuple[Result, str]:
    (result,) = metric.compute()
    return result, " ".join(result.warnings)


def test_all_samples_alike_leave_an_interval_with_width() -> None:
    generator = torch.Generator().manual_seed(0)
    train = torch.randn(40, 3, generator=generator)
    train[:, 1] = 0.5
    for shift, end in ((0.0, 0.0), (50.0, 100.0)):
        metric = AuthPct(3)
        for values, real in ((train + shift, False), (train, True)):
            metric.update(values, torch.arange(40), torch.arange(40), real=real)
        result, said = said_by(metric)
        assert result.value == end
        # one in 40 prompts: 1 - 0.025^(1/40)
        far = 100.0 * (1.0 - 0.025 ** (1 / 40))
        expected = (0.0, far) if end == 0.0 else (100.0 - far, 100.0)
        assert (result.interval.low, result.interval.high) == pytest.approx(expected)
        assert "1 of 3 features are constant over the reference samples" in said


def test_duplicates_in_the_training_set_are_said_and_rows_name_the_nearest() -> None:
    train = torch.tensor([[0.0], [0.0], [4.0], [9.0]])
    new = torch.tensor([[0.1], [3.0], [9.0], [0.0]])
    metric = AuthPct(1)
    metric.update(train, torch.tensor([70, 10, 20, 30]), torch.zeros(4, dtype=int), real=True)
    metric.update(new, torch.tensor([5, 3, 8, 1]), torch.arange(4))
    result, said = said_by(metric)
    assert "2 of 4 reference samples have an exact copy in the reference" in said
    assert result.value == 25.0
    rows = metric.sample_rows()
    assert rows.positions.tolist() == [1, 3, 5, 8]
    assert rows.columns["authentic"].tolist() == [False, False, True, False]
    # of the two copies the first in plan order, at position 10
    assert rows.nearest.tolist() == [10, 20, 10, 30]
