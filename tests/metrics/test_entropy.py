"""Inception score: bounds, the definition, and torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from evaluator.errors import MetricError
from evaluator.metrics import inception_score
from evaluator.metrics.entropy import cell_sums


def definition(logits: np.ndarray) -> float:
    p = softmax(logits, axis=1)
    return float(np.exp(rel_entr(p, p.mean(axis=0)).sum(axis=1).mean()))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31), n=st.integers(1, 40), classes=st.integers(2, 9),
    splits=st.integers(1, 10),
)  # fmt: skip
def test_it_is_the_definition_over_exactly_as_many_splits(
    seed: int, n: int, classes: int, splits: int
) -> None:
    logits = np.random.default_rng(seed).normal(size=(n, classes)) * 5
    splits = min(splits, n)
    pieces = np.array_split(np.random.default_rng(3).permutation(n), splits)
    scores = [definition(logits[piece]) for piece in pieces]
    value = inception_score(logits, splits=splits, seed=3)
    assert len(scores) == splits
    assert value.mean == pytest.approx(np.mean(scores), rel=1e-12)
    assert value.std == pytest.approx(np.std(scores), rel=1e-9, abs=1e-12)
    assert value.single_split == pytest.approx(definition(logits), rel=1e-12)
    assert 1.0 <= value.mean <= classes * (1 + 1e-12)


def test_certain_and_balanced_predictions_reach_the_number_of_classes() -> None:
    logits = np.tile(np.eye(5) * 1000.0, (10, 1))
    assert inception_score(logits, splits=1).mean == pytest.approx(5.0, rel=1e-12)


@pytest.mark.parametrize("logits", [np.zeros((20, 4)), np.tile([5.0, -3.0, 800.0, 0.0], (20, 1))])
def test_equal_predictions_score_one(logits: np.ndarray) -> None:
    value = inception_score(logits, splits=10)
    assert value == pytest.approx((1.0, 0.0, 1.0), abs=1e-12)


def test_twelve_samples_in_ten_splits_and_one_split_have_numbers() -> None:
    logits = np.random.default_rng(0).normal(size=(12, 3))
    assert np.isfinite(inception_score(logits, splits=10)).all()
    one = inception_score(logits, splits=1)
    assert one.mean == one.single_split
    assert one.std == 0.0


def test_it_agrees_with_torch_fidelity() -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = torch.randn(200, 7, generator=torch.Generator().manual_seed(1)) * 3
    peer = isc_features_to_metric(logits, splits=1, shuffle=False)
    value = inception_score(logits, splits=1)
    assert value.mean == pytest.approx(peer["inception_score_mean"], rel=1e-12)


def test_leaving_out_a_group_is_computing_without_it() -> None:
    generator = np.random.default_rng(2)
    logits, groups = torch.from_numpy(generator.normal(size=(50, 4))), np.arange(50) % 5
    sums = cell_sums(logits, groups, 5, splits=1, seed=0)
    for group in range(5):
        rest = definition(logits.numpy()[groups != group])
        assert sums.scores(leave_out=group) == pytest.approx(rest, rel=1e-12)


def test_more_splits_than_samples_are_refused() -> None:
    with pytest.raises(MetricError, match="expected 1 to 5 splits of 5 samples, got 10"):
        inception_score(np.zeros((5, 3)))
