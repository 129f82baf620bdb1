"""Realism: against the direct formula, on points whose realism is known, and its interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import Realism, distances, realism_scores


def brute_force(real: np.ndarray, fake: np.ndarray, k: int) -> np.ndarray:
    apart = np.sqrt([np.square(row - real).sum(axis=1) for row in real])
    radii = np.sort(apart, axis=1)[:, k]
    small = radii < np.median(radii)
    between = np.sqrt([np.square(row - real[small]).sum(axis=1) for row in fake])
    with np.errstate(divide="ignore"):
        return (radii[small] / between).max(axis=1)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    k=st.integers(1, 4),
    offset=st.sampled_from([0.0, 1e4]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_it_is_the_direct_formula_in_any_order(seed: int, k: int, offset: float, dtype) -> None:
    generator = np.random.default_rng(seed)
    real, fake = ((generator.normal(size=(n, 6)) + offset).astype(dtype) for n in (40, 25))
    scores = realism_scores(real, fake, k=k)
    expected = brute_force(real.astype(np.float64), fake.astype(np.float64), k)
    assert scores == pytest.approx(expected, rel=1e-12)
    order = generator.permutation(25)
    assert np.array_equal(
        realism_scores(generator.permutation(real), fake[order], k=k), scores[order]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", 7)
        assert np.array_equal(realism_scores(real, fake, k=k), scores)


def test_on_a_line_it_is_radius_over_distance() -> None:
    # nearest others at 1, 1, 2, 4: the median is 1.5, the balls about 0 and 1 count
    real = np.array([[0.0], [1.0], [3.0], [7.0]])
    scores = realism_scores(real, np.array([[0.5], [2.0], [-4.0], [1.0]]), k=1)
    assert scores.tolist() == [2.0, 1.0, 0.25, np.inf]


def test_balls_without_radius_are_no_neighbourhoods() -> None:
    copies = np.zeros((5, 1))
    real = np.concatenate([copies, [[10.0], [11.0], [13.0]]])
    assert realism_scores(real, np.array([[10.5], [0.0]]), k=1) == pytest.approx([2.0, 0.1])
    with pytest.raises(MetricError, match="real: expected samples with fewer than k=1 copies"):
        realism_scores(copies, copies, k=1)
    # all radii equal: none is below the median, so those equal to it serve
    grid = np.arange(6.0)[:, None]
    assert realism_scores(grid, np.array([[2.5]]), k=1) == pytest.approx([2.0])


def test_copies_are_counted_and_kept_out_of_the_mean() -> None:
    metric = Realism(1, k=1)
    real = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    metric.update(real, torch.arange(4), torch.arange(4), real=True)
    fake = torch.tensor([[0.5], [2.0], [-4.0], [1.0]])
    metric.update(fake, torch.tensor([9, 8, 7, 6]), torch.arange(4))
    (result,) = metric.compute()
    assert (result.value, result.n) == (pytest.approx(3.25 / 3), 3)
    assert result.details["share_inside"] == 0.75
    assert "1 of 4 generated samples equal a reference sample" in result.warnings[0]
    assert "reference held fixed" in result.interval.covers
    rows = metric.sample_rows()
    assert rows.positions.tolist() == [6, 7, 8, 9]
    assert rows.columns["realism"].tolist() == [np.inf, 0.25, 1.0, 2.0]


def test_nothing_but_copies_gives_no_number() -> None:
    metric = Realism(1, k=1)
    for real in (False, True):
        values = torch.tensor([[0.0], [1.0]])
        metric.update(values, torch.arange(2), torch.arange(2), real=real)
    (result,) = metric.compute()
    assert result.value is None
    assert "got 2 copies" in result.warnings[0]


def test_too_few_samples_and_bad_options_are_refused() -> None:
    with pytest.raises(MetricError, match="real: expected more than k=3 samples, got 3"):
        realism_scores(np.eye(3), np.eye(3))
    with pytest.raises(ConfigError, match="k: expected a whole number"):
        realism_scores(np.eye(3), np.eye(3), k=0)
    with pytest.raises(MetricError, match="fake: expected 3 features as in real, got 2"):
        realism_scores(np.eye(3), np.eye(2))


def test_95_percent_intervals_cover_the_mean() -> None:
    generator = np.random.default_rng(0)
    real = generator.normal(size=(80, 3))

    def draw(prompts: int) -> tuple[np.ndarray, np.ndarray]:
        centres = generator.normal(size=(prompts, 3)).repeat(2, axis=0)
        return centres + 0.7 * generator.normal(size=centres.shape), np.arange(2 * prompts) // 2

    truth = realism_scores(real, draw(20_000)[0]).mean()
    inside = 0
    for _ in range(300):
        fake, prompts = draw(60)
        metric = Realism(3)
        metric.update(torch.from_numpy(real), torch.arange(80), torch.arange(80), real=True)
        metric.update(torch.from_numpy(fake), torch.arange(120), torch.from_numpy(prompts))
        interval = metric.compute()[0].interval
        inside += interval.low <= truth <= interval.high
    assert 0.90 <= inside / 300 <= 0.985
