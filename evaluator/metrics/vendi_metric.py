"""Vendi score as a torchmetrics `Metric`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.accumulators import FAKE, GatheredMetric
from evaluator.metrics.arrays import as_directions
from evaluator.metrics.diversity import score_of_directions, score_of_gram
from evaluator.metrics.intervals import COVERS_ONE_SET, Integers, Interval, jackknife_interval
from evaluator.metrics.options import entropy_order, whole_number
from evaluator.metrics.results import Result
from evaluator.metrics.set_metrics import NO_INTERVAL

CEILING_SHARE = 0.1
"""A score above this share of the number of samples still rises with that number. The warning does
not say the score: runs that differ in it alone, as those of a sweep, are warned of in one line."""


class VendiScore(GatheredMetric):
    """Vendi score of generated features: an effective number of different samples.

    Each jackknife group costs one more set of eigenvalues, of a min(N, D)-wide matrix.
    """

    default_names = ("vendi",)
    directions = (True,)

    def __init__(self, dim: int, *, q: float | str = 1.0, **kwargs: Any) -> None:
        """`dim` of the features, order `q` as for `vendi_score` ("inf" for infinity)."""
        self.dim = whole_number("dim", dim, at_least=1)
        self.q = entropy_order("q", q)
        super().__init__(shape=(self.dim,), **kwargs)

    def _results(self) -> tuple[Result, ...]:
        values, n = self._in_plan_order(FAKE), len(self._joined("fake_values"))
        if n == 0:
            return self._refused(
                "expected at least 1 generated sample, got 0; generate more samples", n
            )
        try:
            units = as_directions(values, "generated")
        except MetricError as error:
            return self._refused(str(error), n)
        value = score_of_directions(units, float(self.q))
        warnings = self._cautions(values, value)
        present, groups = np.unique(
            self._group_of(self._clusters_in_plan_order()), return_inverse=True
        )
        interval = None
        if self.groups and len(present) > 1:
            interval = self._interval(value, units, groups)
        elif self.groups:
            warnings.append(NO_INTERVAL)
        return (self._result(value, n, interval=interval, warnings=warnings),)

    def _cautions(self, values: Tensor, value: float) -> list[str]:
        """What the number of samples and the features do to the score."""
        cautions, n = [], len(values)
        if value > CEILING_SHARE * n:
            cautions.append(
                f"above a tenth of its {n} samples (of {self.dim} features): the score rises with "
                "the number of samples; compare only at equal numbers"
            )
        constant = int((values == values[0]).all(dim=0).sum()) if n > 1 else 0
        if constant:
            cautions.append(
                f"{constant} of {self.dim} features are constant over the generated samples"
            )
        return cautions

    def _interval(self, value: float, units: Tensor, groups: Integers) -> Interval:
        """The jackknife interval: without a group, its part of the small matrix is missing."""
        sizes, (n, dim) = np.bincount(groups), units.shape
        gram = units @ units.T if n <= dim else units.T @ units
        replicates = []
        for group, size in enumerate(sizes):
            kept = torch.from_numpy(groups != group).to(units.device)
            if n <= dim:
                rest = gram[kept][:, kept]
            elif n - size <= dim:
                rest = units[kept] @ units[kept].T
            else:
                rest = gram - units[~kept].T @ units[~kept]
            replicates.append(score_of_gram(rest / (n - size), float(self.q)))
        return jackknife_interval(
            value,
            replicates,
            sizes,
            covers=COVERS_ONE_SET,
            level=self.level,
            bounds=(1.0, float(min(n, dim))),
        )
