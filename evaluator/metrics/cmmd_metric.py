"""CMMD as a torchmetrics `Metric`."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluator.errors import MetricError
from evaluator.metrics.arrays import Directions
from evaluator.metrics.gaussian import SCALE, SIGMA, GaussianExcess, biased
from evaluator.metrics.intervals import COVERS_SET, Interval, jackknife_interval
from evaluator.metrics.kernel import GroupSums, group_sums
from evaluator.metrics.options import positive_number
from evaluator.metrics.results import Result
from evaluator.metrics.set_metrics import NO_INTERVAL, TwoSets

BIAS_SHARE = 0.1
"""A larger share of the value that comes from the number of samples alone is said."""


class Cmmd(TwoSets):
    """CMMD between generated and real embeddings; customary on CLIP ViT-L/14 at 336 pixels.

    `details` has the unbiased distance too, which may be negative. The interval is a
    delete-a-group jackknife of the value itself.
    """

    default_names = ("cmmd",)
    directions = (False,)

    def __init__(
        self, dim: int, *, sigma: float = SIGMA, scale: float = SCALE, **kwargs: Any
    ) -> None:
        """`sigma` and `scale` as for `evaluator.metrics.cmmd`."""
        super().__init__(dim, **kwargs)
        self.sigma = positive_number("sigma", sigma)
        self.scale = positive_number("scale", scale)

    def _results(self) -> tuple[Result, ...]:
        fake, groups, real, warnings = self._sets()
        n, m = len(fake), len(real)
        if min(n, m) < 2:
            return self._refused(
                f"expected at least 2 generated and 2 reference samples, got {n} and {m}; "
                "generate more samples or give a larger reference",
                n,
            )
        try:
            units = Directions(fake, "generated"), Directions(real, "reference")
        except MetricError as error:
            return self._refused(str(error), n)
        sums = group_sums(*units, groups, int(groups.max()) + 1, GaussianExcess(self.sigma))
        value, unbiased = self.scale * biased(sums), self.scale * sums.unbiased()
        if value - unbiased > BIAS_SHARE * value:
            warnings.append(
                f"{value - unbiased:.3g} of {value:.3g} come from the number of samples alone "
                f"({n} generated, {m} reference); compare only at equal numbers of samples"
            )
        interval = self._interval(value, sums)
        if self.groups and interval is None:
            warnings.append(NO_INTERVAL)
        details = {"unbiased": unbiased, "n_reference": m}
        return (self._result(value, n, interval=interval, warnings=warnings, details=details),)

    def _interval(self, value: float, sums: GroupSums) -> Interval | None:
        """The jackknife interval; None where nothing would be left."""
        if not self.groups or len(sums.sizes) < 2:
            return None
        return jackknife_interval(
            value,
            [self.scale * biased(sums, leave_out=group) for group in range(len(sums.sizes))],
            sums.sizes,
            covers=COVERS_SET,
            level=self.level,
            bounds=(0.0, np.inf),
        )
