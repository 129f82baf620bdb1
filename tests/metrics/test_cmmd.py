"""CMMD: against loops, by its symmetries, and what is said about small samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import Cmmd, cmmd
from evaluator.metrics import kernel as module


def brute_force(real: np.ndarray, fake: np.ndarray, sigma: float = 10.0) -> float:
    def mean_kernel(a: np.ndarray, b: np.ndarray) -> float:
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        return np.mean([[np.exp(-np.square(x - y).sum() / (2 * sigma**2)) for y in b] for x in a])

    return 1000 * (mean_kernel(real, real) + mean_kernel(fake, fake) - 2 * mean_kernel(real, fake))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 12), m=st.integers(1, 12))
def test_it_is_the_sum_of_the_loops_and_symmetric(seed: int, n: int, m: int) -> None:
    generator = np.random.default_rng(seed)
    real, fake = generator.normal(size=(n, 3)), generator.normal(size=(m, 3)) + 1
    for sigma in (10.0, 0.5):
        got = cmmd(real, fake, sigma=sigma)
        assert got == pytest.approx(brute_force(real, fake, sigma), rel=1e-8, abs=1e-9)
        assert got == pytest.approx(cmmd(fake, real, sigma=sigma), rel=1e-9, abs=1e-11)


def test_the_same_set_is_at_no_distance_and_lengths_do_not_matter() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(200, 16)).astype(np.float32)
    assert cmmd(values, values) == pytest.approx(0.0, abs=1e-11)
    lengths = generator.uniform(1e-3, 1e3, size=(200, 1))
    assert cmmd(values, values * lengths) == pytest.approx(0.0, abs=1e-11)
    assert cmmd(values.astype(np.float64) * 1e-200, values[::-1].copy()) < 1e-11


def test_it_grows_with_a_shift_and_with_the_scale() -> None:
    generator = np.random.default_rng(1)
    real, fake = generator.normal(size=(2, 300, 8))
    shifted = [cmmd(real, fake + shift) for shift in (0.0, 0.3, 1.0, 3.0)]
    assert shifted == sorted(shifted)
    assert shifted[-1] > 10 * shifted[0]
    assert cmmd(real, fake, scale=1.0) == pytest.approx(shifted[0] / 1000, rel=1e-12)


def test_opposite_points_have_the_closed_form() -> None:
    x = np.array([[2.0, 0.0]])
    assert cmmd(x, -x) == pytest.approx(2000 * (1 - np.exp(-4 / 200)), rel=1e-13)


def test_chunks_do_not_change_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    real, fake = generator.normal(size=(70, 5)), generator.normal(size=(50, 5))
    whole = cmmd(real, fake)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 300)
    assert cmmd(real, fake) == pytest.approx(whole, rel=1e-12)


def test_features_without_direction_and_wrong_settings_are_refused() -> None:
    ones, zeros = np.ones((4, 2)), np.zeros((3, 2))
    with pytest.raises(MetricError, match="fake: expected features other than zero.* got 3"):
        cmmd(ones, zeros)
    with pytest.raises(MetricError, match="fake: expected 2 features as in real, got 3"):
        cmmd(ones, np.ones((4, 3)))
    with pytest.raises(ConfigError, match="sigma: expected a number above 0"):
        cmmd(ones, ones, sigma=0.0)


def test_the_share_of_the_bias_is_said_and_zeros_give_no_number() -> None:
    generator = torch.Generator().manual_seed(0)
    fake, real = torch.randn(2, 40, 6, generator=generator)
    metric = Cmmd(6)
    for index, values in enumerate((fake, real)):
        metric.update(values, torch.arange(40), torch.arange(40), real=bool(index))
    (result,) = metric.compute()
    assert any("come from the number of samples alone" in said for said in result.warnings)
    assert result.details["unbiased"] < 0.2 * result.value
    metric = Cmmd(6)
    metric.update(fake + 3, torch.arange(40), torch.arange(40))
    metric.update(real, torch.arange(40), torch.arange(40), real=True)
    (result,) = metric.compute()
    assert not any("number of samples alone" in said for said in result.warnings)
    metric.update(torch.zeros(1, 6), torch.arange(1) + 40, torch.arange(1))
    (result,) = metric.compute()
    assert result.value is None
    assert "generated: expected features other than zero" in result.warnings[0]
