"""MIFID: copies are punished, the definition by loops, and the threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_samples import two_sides, whole

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import Mifid, frechet_distance_from_features, mifid
from evaluator.metrics import penalty as module
from evaluator.metrics.penalty import memorization_distances


def features(seed: int, n: int, dim: int = 6, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)) + shift


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 12), m=st.integers(2, 12))
def test_the_distances_are_those_of_the_loops(seed: int, n: int, m: int) -> None:
    train, generated = features(seed, n, 3), features(seed + 1, m, 3)
    by_loops = [
        min(1 - abs(x @ y) / np.linalg.norm(x) / np.linalg.norm(y) for x in train)
        for y in generated
    ]
    got = memorization_distances(torch.from_numpy(train), torch.from_numpy(generated))
    assert got == pytest.approx(by_loops, abs=1e-12)
    mean = np.mean(by_loops)
    expected = frechet_distance_from_features(train, generated) / (mean if mean < 0.3 else 1.0)
    got_mifid = mifid(train, generated, cosine_distance_eps=0.3)
    assert got_mifid == pytest.approx(expected, rel=1e-6)


def test_chunks_and_narrow_floats_do_not_change_the_distances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, generated = (torch.from_numpy(features(s, 50).astype(np.float32)) for s in (0, 1))
    once = memorization_distances(train.double(), generated.double())
    assert np.array_equal(memorization_distances(train, generated), once)
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 60)
    monkeypatch.setattr(module, "ROWS", 7)
    assert memorization_distances(train, generated) == pytest.approx(once, abs=1e-15)


def test_copies_raise_the_number_and_the_lengths_of_features_do_not_hide_them() -> None:
    train = features(2, 300)
    fresh = features(3, 100, shift=0.1)
    numbers = []
    for copies in (50, 80, 95, 100):
        generated = np.concatenate([2.0 * train[:copies], fresh[copies:]])
        numbers.append(mifid(train, generated) / frechet_distance_from_features(train, generated))
    assert numbers == sorted(numbers)
    assert numbers[0] > 10
    assert numbers[-1] > 1e12
    assert mifid(train, train[::-1].copy()) == 0.0


def test_far_samples_are_judged_by_the_frechet_distance_alone() -> None:
    train, generated = np.zeros((40, 8)), np.zeros((30, 8))
    train[:, :4], generated[:, 4:] = features(4, 40, 4), features(5, 30, 4)
    assert memorization_distances(*map(torch.from_numpy, (train, generated))).min() == 1.0
    expected = frechet_distance_from_features(train, generated)
    assert mifid(train, generated) == pytest.approx(expected, rel=1e-12)


def test_wrong_inputs_are_refused() -> None:
    ones = features(6, 9)
    with pytest.raises(MetricError, match="generated: expected features other than zero"):
        mifid(ones, np.zeros((3, 6)))
    with pytest.raises(MetricError, match="generated: expected 6 features as in train, got 2"):
        mifid(ones, np.ones((3, 2)))
    with pytest.raises(ConfigError, match="cosine_distance_eps: expected a number above 0 and at"):
        mifid(ones, ones, cosine_distance_eps=1.5)


def test_the_class_gives_both_parts_and_names_what_it_cannot_judge() -> None:
    (result,) = whole("mifd_x", cosine_distance_eps=1.0).compute()
    parts = result.details
    assert result.value == pytest.approx(
        parts["frechet_distance"] / parts["memorization_distance"], rel=1e-9
    )
    metric = Mifid(5)
    for plan, real in zip(two_sides("mifd_x"), (False, True), strict=True):
        plan.feed(metric, torch.arange(len(plan.positions)), real=real)
    metric.update(torch.zeros(1, 5), torch.arange(1), torch.arange(1))
    (result,) = metric.compute()
    assert result.value is None
    assert "generated: expected features other than zero" in result.warnings[0]


def test_a_distance_at_the_threshold_is_said() -> None:
    plain = whole("mifd_x", cosine_distance_eps=1.0).compute()[0]
    near = whole("mifd_x", cosine_distance_eps=plain.details["memorization_distance"]).compute()[0]
    assert any("lies so close to the threshold" in said for said in near.warnings)
    assert not any("threshold" in said for said in plain.warnings)
    assert near.value == pytest.approx(near.details["frechet_distance"], rel=1e-12)


@pytest.mark.slow
def test_the_interval_covers_the_value_expected_at_this_size() -> None:
    train = torch.from_numpy(features(7, 200, 4))
    generator = np.random.default_rng(8)
    results = []
    for _ in range(400):
        own, shared = generator.normal(size=(60, 2, 4)), generator.normal(size=(60, 1, 4))
        values = torch.from_numpy((0.3 + (own + shared) / 2**0.5).reshape(-1, 4))
        metric = Mifid(4, groups=12, cosine_distance_eps=1.0)
        metric.update(values, torch.arange(120), torch.arange(60).repeat_interleave(2))
        metric.update(train, torch.arange(200), torch.arange(200), real=True)
        results.append(metric.compute()[0])
    truth = np.mean([result.value for result in results])
    inside = np.mean([r.interval.low <= truth <= r.interval.high for r in results])
    assert 0.90 <= inside <= 0.985
