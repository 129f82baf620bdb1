"""The reference as given moments: the number of samples, and the mistakes that are refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from metric_samples import DIM, build, given_moments, two_sides, whole

from evaluator.errors import MetricError
from evaluator.metrics import FrechetDistance, ReferenceMoments

SPECS = ["fd_x", "fd_infinity_x"]


@pytest.mark.parametrize("spec", SPECS)
def test_given_moments_stand_for_the_samples_behind_them(spec: str) -> None:
    metric = build(spec)
    metric.use_reference(given_moments(spec))
    two_sides(spec)[0].feed(metric, torch.arange(90), real=False)
    (got,), (expected,) = metric.compute(), whole(spec).compute()
    assert got.value == pytest.approx(expected.value, rel=1e-12)
    assert got.details["n_reference"] == 70
    assert got.warnings == expected.warnings
    assert (got.interval.low, got.interval.high) == pytest.approx(
        (expected.interval.low, expected.interval.high), rel=1e-9
    )


@pytest.mark.parametrize("spec", SPECS)
def test_no_second_matrix_of_the_reference_is_held(spec: str) -> None:
    metric = build(spec)
    before = metric.reference.numel()
    metric.use_reference(given_moments(spec))
    assert (before, metric.reference.numel()) == (1 + DIM + DIM**2, 0)
    metric.reset()
    assert metric.reference.numel() == 0
    assert metric._reference().covariance.data_ptr() == metric._given.covariance.ctypes.data


@pytest.mark.parametrize("spec", SPECS)
def test_metrics_with_given_moments_are_saved_cloned_and_merged(spec: str) -> None:
    generated, _ = two_sides(spec)
    parts = [build(spec) for _ in range(3)]
    for part, rows in zip(parts, torch.arange(90).split(30), strict=True):
        part.use_reference(given_moments(spec))
        generated.feed(part, rows, real=False)
    merged = pickle.loads(pickle.dumps(parts[0]))
    for part in parts[1:]:
        merged.merge_state(part)
    one = build(spec)
    one.use_reference(given_moments(spec))
    generated.feed(one, torch.arange(90), real=False)
    value = one.compute()[0].value
    assert merged.compute()[0].value == pytest.approx(value, rel=1e-12)
    restored = build(spec)
    restored.use_reference(given_moments(spec))
    restored.load_state_dict(one.state_dict())
    assert restored.compute() == one.compute()
    assert one.clone().compute() == one.compute()
    with pytest.raises(MetricError, match="states: expected those of .*'reference': 'samples'"):
        build(spec).load_state_dict(one.state_dict())
    with pytest.raises(MetricError, match="build the metric with the same settings"):
        one.merge_state(whole(spec))


@pytest.mark.parametrize("spec", SPECS)
def test_moments_that_cannot_stand_for_the_reference_are_refused(spec: str) -> None:
    moments = given_moments(spec)
    with pytest.raises(
        MetricError, match=f"dimension {DIM + 1} as the features of .*, got {DIM} f"
    ):
        type(build(spec))(DIM + 1).use_reference(moments)
    with pytest.raises(MetricError, match="expected moments or real samples, got both; drop tests"):
        whole(spec).use_reference(moments)
    metric = build(spec)
    metric.use_reference(moments)
    real = two_sides(spec)[1]
    with pytest.raises(MetricError, match="generated samples only, got real=True"):
        real.feed(metric, torch.arange(3), real=True)
    (result,) = metric.compute()
    assert result.value is None
    assert "got 0 and 70;" in result.warnings[0]


def test_an_unknown_number_of_reference_samples_is_said() -> None:
    moments = given_moments("fd_x")
    metric = build("fd_x")
    metric.use_reference(
        ReferenceMoments(
            moments.mean, moments.covariance, None, None, "a file", remarks=("it was rounded",)
        )
    )
    two_sides("fd_x")[0].feed(metric, torch.arange(90), real=False)
    (result,) = metric.compute()
    assert "n_reference" not in result.details
    assert result.warnings[:2] == (
        "it was rounded",
        "the number of reference samples is not known",
    )
    assert not any("reference samples: below" in said for said in result.warnings)


def test_constant_features_of_given_moments_are_said() -> None:
    metric = FrechetDistance(3)
    cov = np.diag([1.0, 0.0, 1.0])
    metric.use_reference(ReferenceMoments(np.ones(3), cov, 20_000, None, "a file"))
    values = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    metric.update(values, torch.arange(9), torch.arange(9))
    said = metric.compute()[0].warnings
    assert "1 of 3 features are constant over the reference samples" in said


@pytest.mark.parametrize(("name", "shift", "said"), [
    ("fid", 11.0, True), ("fid", 1.0, False), ("fd_dinov2", 11.0, False),
])  # fmt: skip
def test_a_fid_above_a_hundred_is_doubted(name: str, shift: float, said: bool) -> None:
    metric = FrechetDistance(4, names=(name,), groups=0)
    values = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    metric.update(values, torch.arange(50), torch.arange(50))
    metric.update(values + shift / 2, torch.arange(50), torch.arange(50), real=True)
    warnings = metric.compute()[0].warnings
    assert any("is above 100: often the images" in warning for warning in warnings) == said
