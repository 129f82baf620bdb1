"""Means of per-sample scores as torchmetrics `Metric`s."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.accumulators import FAKE, GatheredMetric
from evaluator.metrics.intervals import Floats, Interval, clustered_mean_interval
from evaluator.metrics.options import CLIP_VARIANTS, one_of
from evaluator.metrics.results import MeanOf, Result, SampleRows
from evaluator.metrics.scores import sample_clip_scores

SCORE = "score"
"""Column of a sample's own score."""


class MeanScore(GatheredMetric):
    """The mean of one score for each sample, with an interval clustered by prompt.

    `sample_rows()` has the scores themselves.
    """

    default_names = ("mean_score",)
    directions: tuple[bool | None, ...] = (True,)

    def __init__(
        self, dim: int | None = None, *, higher_is_better: bool | None = True, **kwargs: Any
    ) -> None:
        """`dim` is ignored: a score has none. `kwargs` as for `PlannedMetric`."""
        super().__init__(shape=(), **kwargs)
        self.directions = (higher_is_better,)

    def _sample_scores(self, values: Tensor) -> Floats:
        """(N,) values as given → the scores to be averaged."""
        scores: Floats = values.cpu().numpy()
        return scores

    def _results(self) -> tuple[Result, ...]:
        values = self._in_plan_order(FAKE)
        n = len(values)
        if n == 0:
            return self._refused(
                "expected at least 1 scored sample, got 0; compute the score for this run first", n
            )
        scores = self._sample_scores(values)
        places = self._joined("fake_positions").cpu().numpy()  # sorted with the values
        self._rows = SampleRows(places, {SCORE: scores}, means={self.names[0]: MeanOf(SCORE)})
        interval, warnings = self._interval(scores)
        details = {"std": float(scores.std(ddof=1))} if n > 1 else {}
        return (
            self._result(
                float(scores.mean()), n, interval=interval, warnings=warnings, details=details
            ),
        )

    def _interval(self, scores: Floats) -> tuple[Interval | None, list[str]]:
        """The clustered interval, or why there is none."""
        clusters = self._clusters_in_plan_order().cpu().numpy()
        if len(np.unique(clusters)) < 2:
            return None, ["no interval: expected at least 2 prompts, got 1; evaluate more prompts"]
        return clustered_mean_interval(scores, clusters, level=self.level), []


class ClipScore(MeanScore):
    """CLIPScore from cosines; `variant` as for `evaluator.metrics.clip_score`."""

    default_names = ("clip_score",)

    def __init__(self, dim: int | None = None, *, variant: str = "mean", **kwargs: Any) -> None:
        """`dim` is ignored: a cosine has none. `kwargs` as for `PlannedMetric`."""
        super().__init__(**kwargs)
        self.variant = one_of("variant", variant, choices=CLIP_VARIANTS)

    def _sample_scores(self, values: Tensor) -> Floats:
        return sample_clip_scores(values, variant=self.variant)

    def _results(self) -> tuple[Result, ...]:
        try:
            (result,) = super()._results()
        except MetricError as error:
            return self._refused(str(error), len(self._joined("fake_values")))
        if self.variant != "clamped" or result.value is None:
            return (result,)
        if result.value < 0.0 and self._rows is not None:
            self._rows = replace(self._rows, means={})  # 0 is not the mean of the scores
        interval = result.interval and replace(
            result.interval,
            low=max(result.interval.low, 0.0),
            high=max(result.interval.high, 0.0),
        )
        return (replace(result, value=max(result.value, 0.0), interval=interval),)
