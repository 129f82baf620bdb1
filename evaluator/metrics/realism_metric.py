"""Realism as a torchmetrics `Metric`."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluator.errors import MetricError
from evaluator.metrics.intervals import COVERS_MEAN_GIVEN, interval_over_prompts
from evaluator.metrics.options import whole_number
from evaluator.metrics.realism import realism_scores
from evaluator.metrics.results import MeanOf, Result, SampleRows
from evaluator.metrics.set_metrics import TwoSets


class Realism(TwoSets):
    """Mean realism of generated samples; each sample's own stands in `sample_rows()`.

    Copies of reference samples have infinite realism: they are counted in a warning, and the mean
    is that of the others. `details` has the share of samples inside some ball. The interval is
    cluster-robust, with the reference held fixed.
    """

    default_names = ("realism",)
    directions = (True,)

    def __init__(self, dim: int, *, k: int = 3, **kwargs: Any) -> None:
        """`k` as for `realism_scores`; `kwargs` as for `PlannedMetric`."""
        super().__init__(dim, **kwargs)
        self.k = whole_number("k", k, at_least=1)

    def _results(self) -> tuple[Result, ...]:
        fake, _, real, warnings = self._sets()
        n, m = len(fake), len(real)
        if n < 1 or m <= self.k:
            return self._refused(
                f"expected at least 1 generated and more than k={self.k} reference samples, got "
                f"{n} and {m}; generate more samples, give a larger reference or lower k",
                n,
            )
        try:
            scores = realism_scores(real, fake, k=self.k)
        except MetricError as error:
            return self._refused(str(error), n)
        positions, prompts, _ = self._names()
        self._rows = SampleRows(
            positions, {"realism": scores}, means={self.names[0]: MeanOf("realism")}
        )
        proper = np.isfinite(scores)
        copies = n - int(proper.sum())
        if copies:
            warnings.append(
                f"{copies} of {n} generated samples equal a reference sample: their realism is "
                "infinite, and the mean is that of the others"
            )
        if copies == n:
            return self._refused(
                f"expected generated samples that differ from the reference, got {n} copies; "
                "give another reference",
                n,
            )
        interval, reasons = interval_over_prompts(
            scores[proper], prompts[proper], level=self.level, covers=COVERS_MEAN_GIVEN
        )
        details = {"n_reference": float(m), "share_inside": float((scores >= 1.0).mean())}
        result = self._result(
            float(scores[proper].mean()),
            n - copies,
            interval=interval,
            warnings=[*warnings, *reasons],
            details=details,
        )
        return (result,)
