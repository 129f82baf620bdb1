"""Memorized fraction, generalization score, RP score: copies, brute force, pairs, intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import (
    MemorizedFraction,
    RpScore,
    distances,
    generalization_score,
    memorized_fraction,
    rp_score,
)
from evaluator.metrics.memorization import most_similar


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (
        x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1)[:, None] for x in (a, b)
    )
    return a @ b.T


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    threshold=st.floats(-0.5, 0.9),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_it_is_the_share_of_largest_cosines_above_the_threshold(
    seed: int, threshold: float, dtype
) -> None:
    generator = np.random.default_rng(seed)
    train, new = (generator.normal(size=(n, 4)).astype(dtype) + 0.3 for n in (30, 20))
    table = cosines(new, train)
    expected = float((table.max(axis=1) > threshold).mean())
    assert memorized_fraction(train, new, threshold=threshold) == expected
    assert generalization_score(train, new, threshold=threshold) == 1.0 - expected
    scale = generator.uniform(0.1, 10.0, size=(30, 1))
    found = most_similar(torch.from_numpy(train), torch.from_numpy(new))
    assert found.nearest.tolist() == table.argmax(axis=1).tolist()
    assert found.cosines == pytest.approx(table.max(axis=1), abs=1e-14)
    assert (
        memorized_fraction(train * scale, generator.permutation(new), threshold=threshold)
        == expected
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", 7)
        pieces = most_similar(torch.from_numpy(train), torch.from_numpy(new))
    assert all(np.array_equal(one, other) for one, other in zip(pieces, found))


def test_the_limit_itself_is_not_memorized_and_the_first_of_equals_is_named() -> None:
    train = torch.tensor([[0.0, 1.0], [3.0, 4.0], [6.0, 8.0], [1.0, 0.0]], dtype=torch.float64)
    new = torch.tensor([[0.6, 0.8], [1.0, -1.0], [-1.0, 0.0]], dtype=torch.float64)
    found = most_similar(train, new)
    assert found.nearest.tolist() == [1, 3, 0]
    assert found.cosines == pytest.approx([1.0, np.sqrt(0.5), 0.0])
    # (0.6, 0.8) against (1, 0) alone: a cosine of 0.6 does not exceed 0.6
    assert memorized_fraction(train[3:], new[:1], threshold=0.6) == 0.0
    assert memorized_fraction(train[3:], new[:1], threshold=0.59) == 1.0


def test_copies_are_memorized_and_orthogonal_descriptors_are_not() -> None:
    generator = np.random.default_rng(0)
    train = generator.normal(size=(60, 8))
    assert memorized_fraction(train, 3.0 * train) == 1.0
    assert memorized_fraction(train[:, :4] @ np.eye(4, 8), np.eye(8)[4:]) == 0.0


def feed(metric, values: np.ndarray, positions: np.ndarray, *, real: bool = False) -> None:
    places = torch.from_numpy(positions)
    metric.update(torch.from_numpy(values), places, places // 2, real=real)


def test_the_metric_names_the_training_images_and_keeps_width_at_the_ends() -> None:
    generator = np.random.default_rng(1)
    train = generator.normal(size=(30, 64))
    metric = MemorizedFraction(64)
    feed(metric, train, np.arange(30) + 500, real=True)
    chosen = np.array([7, 3, 11, 20])
    feed(metric, 2.0 * train[chosen], np.array([3, 2, 1, 0]))
    memorized, new = metric.compute()
    assert (memorized.value, new.value) == (1.0, 0.0)
    # two prompts
    assert (memorized.interval.low, memorized.interval.high) == (pytest.approx(0.025**0.5), 1.0)
    assert (new.interval.low, new.interval.high) == (0.0, pytest.approx(1 - 0.025**0.5))
    rows = metric.sample_rows()
    assert rows.positions.tolist() == [0, 1, 2, 3]
    assert rows.nearest.tolist() == [520, 511, 503, 507]
    assert rows.columns["memorized"].all()
    assert rows.columns["similarity"] == pytest.approx(1.0)


def test_the_rp_score_joins_by_position_and_says_who_is_left_out() -> None:
    generator = np.random.default_rng(2)
    one = generator.normal(size=(6, 32))
    other = np.where(np.arange(6)[:, None] < 4, one, generator.normal(size=(6, 32)))
    assert rp_score(one, other) == pytest.approx(4 / 6)
    metric = RpScore(32)
    assert metric.paired
    feed(metric, one, np.array([5, 4, 3, 2, 1, 0]))
    feed(metric, other[1:][::-1].copy(), np.array([0, 1, 2, 3, 4]), real=True)
    feed(metric, other[:2], np.array([100, 101]), real=True)
    (result,) = metric.compute()
    assert (result.value, result.n, result.higher_is_better) == (pytest.approx(3 / 5), 5, None)
    said = " ".join(result.warnings)
    assert "1 of 6 generated samples have no partner" in said
    assert "2 of 7 reference samples have no partner" in said
    rows = metric.sample_rows()
    assert rows.positions.tolist() == [0, 1, 2, 3, 4]
    assert (rows.columns["similarity"] > 0.6).tolist() == [False, False, True, True, True]


def test_no_pair_at_all_gives_no_number() -> None:
    metric = RpScore(4)
    feed(metric, np.eye(4), np.arange(4))
    feed(metric, np.eye(4), np.arange(4) + 4, real=True)
    (result,) = metric.compute()
    assert result.value is None
    assert "run both models on the same prompts and seeds" in result.warnings[0]


@pytest.mark.parametrize("metric", [MemorizedFraction(4), RpScore(4)])
def test_descriptors_without_direction_give_no_number(metric) -> None:
    feed(metric, np.zeros((4, 4)), np.arange(4))
    feed(metric, np.eye(4), np.arange(4), real=True)
    for result in metric.compute():
        assert result.value is None
        assert "expected features other than zero" in result.warnings[0]


def test_unequal_pairs_and_bad_thresholds_are_refused() -> None:
    with pytest.raises(MetricError, match="b: expected 4 samples, one for each of a, got 3"):
        rp_score(np.eye(4), np.eye(4)[:3])
    with pytest.raises(ConfigError, match="threshold: expected a cosine from -1 to below 1, got 1"):
        memorized_fraction(np.eye(4), np.eye(4), threshold=1)
    with pytest.raises(MetricError, match="train: expected finite numbers, got 1"):
        memorized_fraction(np.array([[np.nan, 1.0]], dtype=np.float32), np.eye(2))
