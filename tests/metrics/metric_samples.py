"""Samples and metrics that the tests of accumulation share, in one process and in several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluator.metrics.accumulators import PlannedMetric
from evaluator.metrics.catalog import resolve
from evaluator.metrics.published import ReferenceMoments

DIM = 5
SPECS = {
    "fd_x": {"groups": 6},
    "fd_infinity_x": {"groups": 4, "num_points": 4},
    "mifd_x": {"groups": 6},
    "kd_x": {"num_subsets": 5, "subset_size": 30},
    "is_x": {"splits": 3},
    "prdc_x": {"k": 3},
    "cmmd_x": {"groups": 6},
    "vendi_x": {"groups": 6},
    "authpct_x": {"groups": 6},
    "realism_x": {},
    "memorized_fraction_x": {},
    "rp_score_x": {},
    "diversity_x": {},
    "fls_x": {"groups": 6},
    "ct_x": {"groups": 6, "cells": 2},
    "clip_score": {},
}
GIVEN = ("fd_x given", "fd_infinity_x given")
"""The same with the reference's moments given instead of its samples."""
EXACT = {name: not name.startswith("fd_") for name in SPECS}
"""Whether any order gives the same bits; sums of moments agree to 12 digits."""


@dataclass(frozen=True)
class Plan:
    """A plan's worth of one side's samples, in plan order."""

    values: Tensor
    positions: Tensor
    clusters: Tensor
    num_held_out: int = 0
    """The last of the reference samples, which are given as the held-out set."""

    def feed(self, metric: PlannedMetric, indices: Tensor, *, real: bool) -> None:
        held_out = indices >= len(self.positions) - self.num_held_out
        if self.num_held_out and bool(held_out.any()):
            chosen, indices = indices[held_out], indices[~held_out]
            metric.update(
                self.values[chosen], self.positions[chosen], self.clusters[chosen], held_out=True
            )
        metric.update(
            self.values[indices], self.positions[indices], self.clusters[indices], real=real
        )


def build(spec: str, **options: object) -> PlannedMetric:
    metric = resolve(spec, options={**SPECS[spec], **options}).build(DIM)
    assert isinstance(metric, PlannedMetric)
    return metric


def two_sides(spec: str, n: int = 90, m: int = 70) -> tuple[Plan, Plan | None]:
    """Generated samples, two for each prompt, and real ones where the metric takes them.

    Where it takes held-out samples too, the last 30 of the real ones are that.
    """
    generator = torch.Generator().manual_seed(0)
    plan = resolve(spec)
    fake = torch.randn(n, DIM, generator=generator) + 0.2
    if plan.input == "text_cosine":
        fake = torch.tanh(fake[:, 0])
    generated = Plan(fake, torch.arange(n) + 1000, torch.arange(n) // 2)
    if not plan.reference:
        return generated, None
    real = torch.randn(m, DIM, generator=generator)
    # pairs share their positions
    start = 1000 if type(build(spec)).paired else 0
    held_out = 30 if plan.held_out else 0
    return generated, Plan(real, torch.arange(m) + start, torch.arange(m), held_out)


def whole(spec: str, **options: object) -> PlannedMetric:
    """The metric after everything came in one update a side."""
    metric = build(spec, **options)
    for plan, real in zip(two_sides(spec), (False, True), strict=True):
        if plan is not None:
            plan.feed(metric, torch.arange(len(plan.positions)), real=real)
    return metric


def given_moments(spec: str) -> ReferenceMoments:
    """The moments of the real samples, as a file would give them."""
    real = two_sides(spec)[1].values.double().numpy()
    cov = np.cov(real, rowvar=False)
    return ReferenceMoments(real.mean(axis=0), cov, len(real), None, "tests' moments")
