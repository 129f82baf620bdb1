"""MIFID as a torchmetrics `Metric`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from evaluator.errors import MetricError
from evaluator.metrics.fixed_gaussian import FixedGaussian
from evaluator.metrics.frechet_metric import REPLICATE_ACCURACY
from evaluator.metrics.intervals import COVERS_SET, Floats, Interval, jackknife_interval
from evaluator.metrics.moments import Moments
from evaluator.metrics.options import share
from evaluator.metrics.penalty import (
    COSINE_DISTANCE_EPS,
    mean_without,
    memorization_distances,
    penalized,
)
from evaluator.metrics.results import Result
from evaluator.metrics.set_metrics import NO_INTERVAL, TwoSets


class Mifid(TwoSets):
    """Fréchet distance over the distance to the training set, which is the reference.

    `details` has the two parts: `frechet_distance` and `memorization_distance`. The interval is a
    delete-a-group jackknife; whether the mean distance is below the threshold is held fixed in it.
    """

    default_names = ("mifid",)
    directions = (False,)

    def __init__(
        self, dim: int, *, cosine_distance_eps: float = COSINE_DISTANCE_EPS, **kwargs: Any
    ) -> None:
        """`cosine_distance_eps` as for `evaluator.metrics.mifid`."""
        super().__init__(dim, **kwargs)
        self.cosine_distance_eps = share("cosine_distance_eps", cosine_distance_eps)

    def _results(self) -> tuple[Result, ...]:
        fake, groups, train, warnings = self._sets()
        n, m = len(fake), len(train)
        if min(n, m) < 2:
            return self._refused(
                f"expected at least 2 generated and 2 reference samples, got {n} and {m}; "
                "generate more samples or give the training set as reference",
                n,
            )
        try:
            nearest = memorization_distances(train, fake)
        except MetricError as error:
            return self._refused(str(error), n)
        reference = Moments.from_features(train)
        real = FixedGaussian(reference.mean, reference.covariance())
        parts = [
            Moments.from_features(fake[torch.from_numpy(groups == group)])
            for group in range(int(groups.max()) + 1)
        ]
        whole = functools.reduce(Moments.merge, parts)
        distance, memorized = real.distance(whole), float(nearest.mean())
        value = penalized(distance, memorized, self.cosine_distance_eps)
        without = mean_without(nearest, groups) if len(parts) > 1 else np.array([memorized])
        interval = self._interval(value, memorized, without, real, whole, parts)
        if self.groups and interval is None:
            warnings.append(NO_INTERVAL)
        below = without < self.cosine_distance_eps
        if below.any() != below.all():
            warnings.append(
                f"the memorization distance {memorized:.4g} lies so close to the threshold "
                f"{self.cosine_distance_eps:g} that single prompts decide whether it counts; the "
                "interval does not cover that"
            )
        details: dict[str, float] = {
            "frechet_distance": distance,
            "memorization_distance": memorized,
            "n_reference": m,
        }
        return (self._result(value, n, interval=interval, warnings=warnings, details=details),)

    def _interval(
        self,
        value: float,
        memorized: float,
        without: Floats,
        real: FixedGaussian,
        whole: Moments,
        parts: list[Moments],
    ) -> Interval | None:
        """The jackknife interval; None where nothing would be left."""
        sizes = [part.n for part in parts]
        if not self.groups or len(parts) < 2 or whole.n - max(sizes) < 2:
            return None
        side = np.inf if memorized < self.cosine_distance_eps else 0.0
        distances = real.distances_without(whole, parts, accuracy=REPLICATE_ACCURACY)
        replicates = [
            penalized(distance, mean, side)
            for distance, mean in zip(distances, without, strict=True)
        ]
        return jackknife_interval(
            value, replicates, sizes, covers=COVERS_SET, level=self.level, bounds=(0.0, np.inf)
        )
