"""Fréchet distance as a torchmetrics `Metric` over mergeable moments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from evaluator.metrics.accumulators import REAL, PlannedMetric
from evaluator.metrics.arrays import EPSILON
from evaluator.metrics.frechet import ACCURACY, frechet_distance
from evaluator.metrics.intervals import COVERS_SET, Interval, jackknife_interval
from evaluator.metrics.moments import Moments
from evaluator.metrics.options import whole_number
from evaluator.metrics.results import Result

RECOMMENDED_SAMPLES = 10_000
"""Below this the distance is biased upwards enough to reorder models."""
REPLICATE_ACCURACY = 1e-6
"""Enough for a standard error, and the faster path then serves spectra as steep as Inception's."""


def pack_moments(moments: Moments) -> Tensor:
    """(1 + D + D²,) float64: n, mean, m2."""
    count = moments.mean.new_tensor([moments.n])
    return torch.cat([count, moments.mean, moments.m2.flatten()])


def unpack_moments(row: Tensor, dim: int) -> Moments:
    """The inverse of `pack_moments`, without a copy."""
    return Moments(int(row[0]), row[1 : 1 + dim], row[1 + dim :].view(dim, dim))


def merge_packed(stacked: Tensor, dim: int) -> Tensor:
    """(W, …, 1 + D + D²) packed moments → their union over the first axis, in its order."""
    if stacked.ndim > 2:
        return torch.stack([merge_packed(row, dim) for row in stacked.unbind(dim=1)])
    moments = [unpack_moments(row, dim) for row in stacked]
    return pack_moments(functools.reduce(Moments.merge, moments))


class FrechetDistance(PlannedMetric):
    """Fréchet distance between generated and real features ("FID" on Inception features).

    One state holds the moments of the reference and of each jackknife group of generated
    samples, (1 + groups) · (1 + D + D²) float64: 0.7 GB at D = 2048, 67 MB with `groups=0`.
    Reordering samples or processes changes the number by rounding only (1e-12 relative).

    The interval is a delete-a-group jackknife over prompts, with the reference held fixed. It
    covers the distance expected at this sample size, which is above the distance at infinitely
    many samples by a bias of order D² / n.
    """

    default_names = ("frechet_distance",)
    directions = (False,)
    sides = ("fake", "real")

    moments: Tensor

    def __init__(self, dim: int, **kwargs: Any) -> None:
        """`dim` of the features; `kwargs` as for `PlannedMetric`."""
        self.dim = whole_number("dim", dim, at_least=1)
        super().__init__(**kwargs)
        rows = 1 + max(self.groups, 1)
        self.add_state(
            "moments",
            default=torch.zeros(rows, 1 + self.dim + self.dim**2, dtype=torch.float64),
            dist_reduce_fx=functools.partial(merge_packed, dim=self.dim),
            persistent=True,
        )

    def _sample_shape(self) -> tuple[int, ...]:
        return (self.dim,)

    def _accept(self, values: Tensor, clusters: Tensor, side: str) -> None:
        if side == REAL:
            self._merge_into(0, values)
            return
        groups = self._group_of(clusters)
        for group in np.unique(groups):
            members = torch.from_numpy(groups == group).to(values.device)
            self._merge_into(1 + int(group), values[members])

    def _merge_into(self, row: int, values: Tensor) -> None:
        """Chan's merge of a batch, in place: passing over D² numbers is what a batch costs.

        So the term of the two means is one more row of the product, and large batches are cheap.
        """
        if len(values) == 0:
            return
        values, state = values.to(torch.float64), self.moments[row]
        count, batch = float(state[0]), len(values)
        mean, m2 = state[1 : 1 + self.dim], state[1 + self.dim :].view(self.dim, self.dim)
        batch_mean = values.mean(dim=0)
        centred, delta = values - batch_mean, batch_mean - mean
        rows = torch.cat([centred, delta[None] * (count * batch / (count + batch)) ** 0.5])
        m2.addmm_(rows.T, rows)
        mean.add_(delta, alpha=batch / (count + batch))
        state[0] += batch

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] = gather_all_tensors, process_group: Any = None
    ) -> None:
        """Row by row, so that no process holds the groups of all processes at one time."""
        group = process_group or self.process_group
        gathered = (torch.stack(dist_sync_fn(row, group=group)) for row in self.moments)
        merged = torch.stack([merge_packed(rows, self.dim) for rows in gathered])
        super()._sync_dist(dist_sync_fn, process_group)
        self.moments = merged

    def _results(self) -> tuple[Result, ...]:
        rows = [unpack_moments(row, self.dim) for row in self.moments]
        real, parts = rows[0], [part for part in rows[1:] if part.n]
        fake = functools.reduce(Moments.merge, parts, Moments.empty(self.dim, device=self.device))
        if min(fake.n, real.n) < 2:
            return self._refused(
                f"expected at least 2 generated and 2 reference samples, got {fake.n} and "
                f"{real.n}; generate more samples or give a larger reference",
                fake.n,
            )
        value = _distance(fake, real)
        interval, doubts = self._interval(value, fake, real, parts)
        return (
            self._result(
                value,
                fake.n,
                interval=interval,
                warnings=[*_cautions(fake, real), *doubts],
                details={"n_reference": real.n},
            ),
        )

    def _interval(
        self, value: float, fake: Moments, real: Moments, parts: list[Moments]
    ) -> tuple[Interval | None, list[str]]:
        """The jackknife interval, or why there is none."""
        if not self.groups:
            return None, []
        rest = [fake.without(part) for part in parts]
        if len(parts) < 2 or min(left.n for left in rest) < 2:
            return None, ["no interval: too few prompts to leave a group of them out"]
        interval = jackknife_interval(
            value,
            [_distance(left, real, accuracy=REPLICATE_ACCURACY) for left in rest],
            [part.n for part in parts],
            covers=COVERS_SET,
            level=self.level,
            bounds=(0.0, np.inf),
        )
        return interval, []


def _distance(fake: Moments, real: Moments, *, accuracy: float = ACCURACY) -> float:
    return frechet_distance(
        fake.mean, fake.covariance(), real.mean, real.covariance(), accuracy=accuracy
    )


def _cautions(fake: Moments, real: Moments) -> list[str]:
    """What a reader should know about the sample sizes and the features."""
    cautions = []
    for name, side in (("generated", fake), ("reference", real)):
        dim = len(side.mean)
        if side.n < RECOMMENDED_SAMPLES:
            cautions.append(
                f"{side.n} {name} samples: below {RECOMMENDED_SAMPLES}, the distance is biased "
                "upwards; compare only with values at the same number of samples"
            )
        if side.n <= dim:
            cautions.append(
                f"{side.n} {name} samples for {dim} features: the covariance lacks full rank"
            )
        # the mean of equal numbers is known to a few units in the last place
        floor = side.n * (64.0 * EPSILON * side.mean.abs()).square()
        constant = int((side.m2.diagonal() <= floor).sum())
        if constant:
            cautions.append(f"{constant} of {dim} features are constant over the {name} samples")
    return cautions
