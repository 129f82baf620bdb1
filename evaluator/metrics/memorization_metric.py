"""Memorized fraction, generalization score and RP score as torchmetrics `Metric`s."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from evaluator.errors import MetricError
from evaluator.metrics.accumulators import FAKE, REAL, GatheredMetric
from evaluator.metrics.intervals import COVERS_MEAN_GIVEN, interval_over_prompts
from evaluator.metrics.memorization import THRESHOLD, Cosines, most_similar
from evaluator.metrics.options import cosine_threshold, whole_number
from evaluator.metrics.results import MeanOf, Result, SampleRows


class MemorizedFraction(GatheredMetric):
    """Shares of generated samples that repeat a training sample, and that repeat none.

    The reference is the training set, all of it: a subset would hide copies, so there is none.
    `sample_rows()` names the training sample most similar to each. The interval is that of
    `clustered_share_interval`, which has width at 0 and 1.
    """

    default_names = ("memorized_fraction", "generalization_score")
    directions = (False, True)
    sides = (FAKE, REAL)

    def __init__(self, dim: int, *, threshold: float = THRESHOLD, **kwargs: Any) -> None:
        """`threshold` as for `memorized_fraction`; `kwargs` as for `PlannedMetric`."""
        self.dim = whole_number("dim", dim, at_least=1)
        self.threshold = cosine_threshold("threshold", threshold)
        super().__init__(shape=(self.dim,), **kwargs)

    def _results(self) -> tuple[Result, ...]:
        generated, train = (self._in_plan_order(side, wide=False) for side in (FAKE, REAL))
        n, m = len(generated), len(train)
        if n < 1 or m < 1:
            return self._refused(
                f"expected at least 1 generated and 1 reference samples, got {n} and {m}; "
                "generate more samples or give the training set as reference",
                n,
            )
        try:
            found = most_similar(train, generated)
        except MetricError as error:
            return self._refused(str(error), n)
        memorized = found.cosines > self.threshold
        places = {
            side: self._joined(f"{side}_positions").sort().values.cpu().numpy()
            for side in self.sides
        }
        self._rows = SampleRows(
            places[FAKE],
            {"similarity": found.cosines, "memorized": memorized},
            places[REAL][found.nearest],
            means={
                self.names[0]: MeanOf("memorized"),
                self.names[1]: MeanOf("memorized", factor=-1.0, offset=1.0),
            },
        )
        prompts = self._clusters_in_plan_order().cpu().numpy()
        interval, warnings = interval_over_prompts(
            memorized, prompts, level=self.level, covers=COVERS_MEAN_GIVEN, share=True
        )
        rest = interval and replace(interval, low=1.0 - interval.high, high=1.0 - interval.low)
        share, details = float(memorized.mean()), {"n_reference": float(m)}
        return (
            self._result(share, n, interval=interval, warnings=warnings, details=details),
            self._result(
                1.0 - share, n, index=1, interval=rest, warnings=warnings, details=details
            ),
        )


class RpScore(GatheredMetric):
    """RP score of two models from the images they made of the same noise.

    The other model's samples are given with `real=True`, each under the position of the sample
    it is paired with. The interval is that of `clustered_share_interval`.
    """

    default_names = ("rp_score",)
    directions: tuple[bool | None, ...] = (None,)
    sides = (FAKE, REAL)
    paired = True

    def __init__(self, dim: int, *, threshold: float = THRESHOLD, **kwargs: Any) -> None:
        """`threshold` as for `rp_score`; `kwargs` as for `PlannedMetric`."""
        self.dim = whole_number("dim", dim, at_least=1)
        self.threshold = cosine_threshold("threshold", threshold)
        super().__init__(shape=(self.dim,), **kwargs)

    def _results(self) -> tuple[Result, ...]:
        one, other = (
            self._joined(f"{side}_positions").sort().values.cpu().numpy() for side in self.sides
        )
        both, i, j = np.intersect1d(one, other, assume_unique=True, return_indices=True)
        if not len(both):
            return self._refused(
                "expected at least 1 pair of samples at the same position, got 0 among "
                f"the two models' samples, got {len(one)} and {len(other)}; "
                "run both models on the same prompts and seeds",
                len(one),
            )
        try:
            ours, theirs = (self._in_plan_order(side, wide=False) for side in self.sides)
            cosines = Cosines(ours, theirs, ("generated", "reference")).cosines(i, j)
        except MetricError as error:
            return self._refused(str(error), len(both))
        warnings = [
            f"{len(positions) - len(both)} of {len(positions)} {name} samples have no partner and "
            "are left out"
            for name, positions in (("generated", one), ("reference", other))
            if len(positions) > len(both)
        ]
        same, prompts = cosines > self.threshold, self._clusters_in_plan_order().cpu().numpy()[i]
        self._rows = SampleRows(
            both, {"similarity": cosines, "same": same}, means={self.names[0]: MeanOf("same")}
        )
        interval, reasons = interval_over_prompts(same, prompts, level=self.level, share=True)
        return (
            self._result(
                float(same.mean()), len(both), interval=interval, warnings=[*warnings, *reasons]
            ),
        )
