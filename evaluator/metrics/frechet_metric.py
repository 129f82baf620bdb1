"""Fréchet distance as a torchmetrics `Metric` over mergeable moments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from evaluator.metrics.accumulators import REAL
from evaluator.metrics.arrays import EPSILON
from evaluator.metrics.fixed_gaussian import FixedGaussian
from evaluator.metrics.intervals import COVERS_SET, Interval, jackknife_interval
from evaluator.metrics.moments import Moments
from evaluator.metrics.reference import (
    AgainstMoments,
    add_to_packed,
    merge_packed,
    unpack_moments,
)
from evaluator.metrics.results import Result

RECOMMENDED_SAMPLES = 10_000
"""Below this the distance is biased upwards enough to reorder models."""
REPLICATE_ACCURACY = 1e-6
"""Enough for a standard error, and the faster path then serves spectra as steep as Inception's."""
SUSPICIOUS_FID = 100.0
"""Above this, images and reference were often made ready in different ways."""


class FrechetDistance(AgainstMoments):
    """Fréchet distance between generated and real features ("FID" on Inception features).

    One state holds the moments of each jackknife group of generated samples, another those of the
    reference, (groups + 1) · (1 + D + D²) float64 together: 0.7 GB at D = 2048, 67 MB with
    `groups=0`. Reordering samples or processes changes the number by rounding only (1e-12
    relative). `use_reference` takes published moments in place of real samples.

    The interval is a delete-a-group jackknife over prompts, with the reference held fixed. It
    covers the distance expected at this sample size, which is above the distance at infinitely
    many samples by a bias of order D² / n.
    """

    default_names = ("frechet_distance",)
    directions = (False,)

    moments: Tensor

    def __init__(self, dim: int, **kwargs: Any) -> None:
        """`dim` of the features; `kwargs` as for `PlannedMetric`."""
        super().__init__(dim, **kwargs)
        rows = max(self.groups, 1)
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
            add_to_packed(self.reference, values)
            return
        groups = self._group_of(clusters)
        for group in np.unique(groups):
            members = torch.from_numpy(groups == group).to(values.device)
            add_to_packed(self.moments[int(group)], values[members])

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
        parts = [part for part in rows if part.n]
        fake = functools.reduce(Moments.merge, parts, Moments.empty(self.dim, device=self.device))
        count = self._num_reference()
        if min(fake.n, 2 if count is None else count) < 2:
            return self._refused(
                f"expected at least 2 generated and 2 reference samples, got {fake.n} and "
                f"{'unknown' if count is None else count}; generate more samples or give a larger "
                "reference",
                fake.n,
            )
        real = self._reference()
        fixed = FixedGaussian(real.mean, real.covariance)
        value = fixed.distance(fake)
        warnings = [
            *real.remarks,
            *_size_cautions("generated", fake.n, self.dim),
            *_size_cautions("reference", real.n, self.dim),
            *constant_cautions("generated", fake.mean, fake.covariance()),
            *constant_cautions("reference", real.mean, real.covariance),
        ]
        if self.names[0] == "fid" and value > SUSPICIOUS_FID:
            warnings.append(
                f"{value:.0f} is above {SUSPICIOUS_FID:.0f}: often the images and the reference "
                "differ in resolution, or in how they were resized and normalised; check both"
            )
        interval, doubts = self._interval(value, fake, fixed, parts)
        result = self._result(
            value, fake.n, interval=interval, warnings=[*warnings, *doubts], details=real.details
        )
        return (result,)

    def _interval(
        self, value: float, fake: Moments, real: FixedGaussian, parts: list[Moments]
    ) -> tuple[Interval | None, list[str]]:
        """The jackknife interval, or why there is none."""
        if not self.groups:
            return None, []
        sizes = [part.n for part in parts]
        if len(parts) < 2 or fake.n - max(sizes) < 2:
            return None, ["no interval: too few prompts to leave a group of them out"]
        replicates = list(real.distances_without(fake, parts, accuracy=REPLICATE_ACCURACY))
        interval = jackknife_interval(
            value, replicates, sizes, covers=COVERS_SET, level=self.level, bounds=(0.0, np.inf)
        )
        return interval, []


def _size_cautions(name: str, n: int | None, dim: int) -> list[str]:
    """What a reader should know about a number of samples."""
    cautions = []
    if n is not None and n < RECOMMENDED_SAMPLES:
        cautions.append(
            f"{n} {name} samples: below {RECOMMENDED_SAMPLES}, the distance is biased upwards; "
            "compare only with values at the same number of samples"
        )
    if n is not None and n <= dim:
        cautions.append(f"{n} {name} samples for {dim} features: the covariance lacks full rank")
    return cautions


def constant_cautions(name: str, mean: Tensor, covariance: Tensor) -> list[str]:
    """Whether features are the same over all samples."""
    # the mean of equal numbers is known to a few units in the last place
    floor = 2.0 * (64.0 * EPSILON * mean.abs()).square()
    constant = int((covariance.diagonal() <= floor).sum())
    if not constant:
        return []
    return [f"{constant} of {len(mean)} features are constant over the {name} samples"]
