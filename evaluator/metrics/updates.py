"""What one update of a metric brings: which set it belongs to, and whether it can be taken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evaluator.errors import MetricError

FAKE, REAL, HELD_OUT = "fake", "real", "held_out"
"""The sides of a comparison, as they appear in the names of states.

Generated samples; the reference; samples like the reference that no model was trained on.
"""


def side_of(metric: str, sides: Sequence[str], *, real: bool, held_out: bool) -> str:
    """The set that an update of `metric`, which takes `sides`, belongs to."""
    if real and held_out:
        raise MetricError(
            f"{metric}: expected samples of one set, got real=True and held_out=True; "
            "update once for each set"
        )
    if real and REAL not in sides:
        raise MetricError(
            f"{metric}: expected generated samples only, got real=True; "
            "this metric has no reference, drop that update"
        )
    if held_out and HELD_OUT not in sides:
        raise MetricError(
            f"{metric}: expected no held-out samples, got held_out=True; "
            "this metric compares with none, drop that update"
        )
    return REAL if real else HELD_OUT if held_out else FAKE


def check_samples(
    values: Tensor, positions: Tensor, clusters: Tensor, expected: tuple[int, ...]
) -> None:
    """Samples of shape `expected`: finite floats, whole numbers to name them."""
    n = len(values) if values.ndim else 0
    if tuple(values.shape) != (n, *expected) or not values.is_floating_point():
        raise MetricError(
            f"values: expected floats of shape {('N', *expected)}, got {values.dtype} of "
            f"{tuple(values.shape)}; build the metric with the extractor's dimension"
        )
    for name, numbers in (("positions", positions), ("clusters", clusters)):
        integral = not (numbers.is_floating_point() or numbers.dtype == torch.bool)
        if tuple(numbers.shape) != (n,) or not integral:
            raise MetricError(
                f"{name}: expected {n} integers, one for each sample, got {numbers.dtype} of "
                f"{tuple(numbers.shape)}; pass an int64 tensor"
            )
    if n and int(clusters.min()) < 0:
        raise MetricError(
            f"clusters: expected prompt numbers from 0, got {int(clusters.min())}; count from 0"
        )
    finite = torch.isfinite(values)
    finite = finite.all(dim=1) if finite.ndim > 1 else finite
    if not bool(finite.all()):
        bad = positions[~finite].tolist()
        named = ", ".join(str(position) for position in bad[:10])
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise MetricError(
            f"values: expected finite numbers, got NaN or infinity at positions {named}{more};"
            " recompute these samples' features, or leave the samples out as errors"
        )
