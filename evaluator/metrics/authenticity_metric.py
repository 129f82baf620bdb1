"""AuthPct as a torchmetrics `Metric`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evaluator.metrics.authenticity import authenticity
from evaluator.metrics.distances import Booleans
from evaluator.metrics.intervals import (
    COVERS_MEAN_GIVEN,
    COVERS_SET,
    Integers,
    Interval,
    clustered_share_interval,
    jackknife_interval,
)
from evaluator.metrics.results import MeanOf, Result, SampleRows
from evaluator.metrics.set_metrics import NO_INTERVAL, TwoSets


class AuthPct(TwoSets):
    """Percentage of authentic generated samples; the reference is the training set.

    The interval is a delete-a-group jackknife; where all samples agree it is that of
    `clustered_share_interval`, which has width there.
    """

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
        found = authenticity(real, fake)
        positions, prompts, real_positions = self._names()
        self._rows = SampleRows(
            positions,
            {"authentic": found.authentic},
            real_positions[found.nearest],
            means={self.names[0]: MeanOf("authentic", factor=100.0)},
        )
        if found.num_copies:
            warnings.append(
                f"{found.num_copies} of {m} reference samples have an exact copy in the reference:"
                " whatever is nearest to them and no copy itself counts as authentic; "
                "drop duplicates from the training set"
            )
        interval = None
        if self.groups and len(np.bincount(groups)) > 1:
            interval = self._interval(found.authentic, groups, prompts)
        elif self.groups:
            warnings.append(NO_INTERVAL)
        value, details = 100.0 * float(found.authentic.mean()), {"n_reference": float(m)}
        return (self._result(value, n, interval=interval, warnings=warnings, details=details),)

    def _interval(self, marks: Booleans, groups: Integers, prompts: Integers) -> Interval:
        """The jackknife interval, or that of a share at its end."""
        value, sizes = 100.0 * float(marks.mean()), np.bincount(groups)
        if value in (0.0, 100.0):
            share = clustered_share_interval(marks, prompts, level=self.level)
            low, high = 100.0 * share.low, 100.0 * share.high
            return replace(share, low=low, high=high, covers=COVERS_MEAN_GIVEN)
        counts = np.bincount(groups, weights=marks)
        return jackknife_interval(
            value,
            100.0 * (counts.sum() - counts) / (len(marks) - sizes),
            sizes,
            covers=COVERS_SET,
            level=self.level,
            bounds=(0.0, 100.0),
        )
