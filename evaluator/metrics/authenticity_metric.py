"""AuthPct as a torchmetrics `Metric`."""

from __future__ import annotations

import numpy as np

from evaluator.metrics.authenticity import authenticity
from evaluator.metrics.intervals import COVERS_SET, jackknife_interval
from evaluator.metrics.results import Result
from evaluator.metrics.set_metrics import NO_INTERVAL, TwoSets


class AuthPct(TwoSets):
    """Percentage of authentic generated samples; the reference is the training set."""

    default_names = ("authpct",)
    directions = (True,)

    def _results(self) -> tuple[Result, ...]:
        fake, groups, real, warnings = self._sets()
        n, m = len(fake), len(real)
        if n < 1 or m < 2:
            return self._refused(
                f"expected at least 1 generated and 2 reference samples, got {n} and {m}; "
                "generate more samples or give the training set as reference",
                n,
            )
        marks = authenticity(real, fake).authentic
        value = 100.0 * float(marks.mean())
        sizes, interval = np.bincount(groups), None
        if self.groups and len(sizes) > 1:
            counts = np.bincount(groups, weights=marks)
            interval = jackknife_interval(
                value,
                100.0 * (counts.sum() - counts) / (n - sizes),
                sizes,
                covers=COVERS_SET,
                level=self.level,
                bounds=(0.0, 100.0),
            )
            if value in (0.0, 100.0):
                warnings.append("all samples agree: the interval of no width shows no uncertainty")
        elif self.groups:
            warnings.append(NO_INTERVAL)
        details: dict[str, float] = {"n_reference": m}
        return (self._result(value, n, interval=interval, warnings=warnings, details=details),)
