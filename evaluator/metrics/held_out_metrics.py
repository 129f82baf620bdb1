"""FLS and C_T, which judge by samples that no model was trained on, as torchmetrics `Metric`s."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.accumulators import FAKE, HELD_OUT, REAL, GatheredMetric
from evaluator.metrics.copying import CELLS, COMPONENTS, compare_cells
from evaluator.metrics.intervals import COVERS_SET, Integers, jackknife_interval
from evaluator.metrics.likelihood import Likelihoods
from evaluator.metrics.options import whole_number
from evaluator.metrics.results import Result
from evaluator.metrics.set_metrics import NO_INTERVAL

COVERS_THREE = COVERS_SET.replace("the reference", "the training and held-out sets")


class ThreeSets(GatheredMetric):
    """Generated samples against a training set, given as `real`, and a held-out set."""

    sides = (FAKE, REAL, HELD_OUT)

    def __init__(self, dim: int, **kwargs: Any) -> None:
        self.dim = whole_number("dim", dim, at_least=1)
        super().__init__(shape=(self.dim,), **kwargs)

    def _three(self) -> tuple[Tensor, Tensor, Tensor]:
        """Training, held-out and generated features in plan order, as they are held."""
        train, held_out, generated = (
            self._in_plan_order(side, wide=False) for side in (REAL, HELD_OUT, FAKE)
        )
        return train, held_out, generated

    def _dense_groups(self) -> Integers:
        """Jackknife groups 0, 1, … of the generated samples."""
        groups = self._group_of(self._clusters_in_plan_order())
        return np.unique(groups, return_inverse=True)[1].astype(np.int64)


class Fls(ThreeSets):
    """FLS of generated samples; about 100 for training data.

    Above `max_samples` a side a seeded subset is taken, and of the training set twice as many:
    memory grows with the square (4 GB at 5,000, where 10,000 take 8).
    The interval is a delete-a-group jackknife over the Gaussians of the density, their variances
    kept as fitted: 20 fits would each cost as much as the metric.
    """

    default_names = ("fls",)
    directions = (True,)

    def __init__(self, dim: int, *, max_samples: int = 5_000, **kwargs: Any) -> None:
        """`kwargs` as for `PlannedMetric`."""
        super().__init__(dim, **kwargs)
        self.max_samples = whole_number("max_samples", max_samples, at_least=2)

    def _results(self) -> tuple[Result, ...]:
        sets, warnings = self._three(), list[str]()
        n, m, k = len(sets[2]), len(sets[0]), len(sets[1])
        train, held_out, generated = (
            self._cut(values, most) for values, most in zip(sets, (2, 1, 1), strict=True)
        )
        try:
            fitted = Likelihoods.of(
                sets[0][train], sets[1][held_out], sets[2][generated], seed=self.seed
            )
        except MetricError as error:
            return self._refused(f"{error}; got {n} generated samples", n)
        used = len(fitted.kept)
        if used < n:
            warnings.append(
                f"computed on a seeded subset of {used} of {n} generated samples: their number is "
                "at most half of the training set's and max_samples"
            )
        groups = self._dense_groups()[generated.numpy()[fitted.kept]]
        _, groups = np.unique(groups, return_inverse=True)
        sizes, value, interval = np.bincount(groups), fitted.score(), None
        if self.groups and len(sizes) > 1:
            interval = jackknife_interval(
                value,
                fitted.without_groups(groups),
                sizes,
                covers=COVERS_THREE,
                level=self.level,
                bounds=(0.0, np.inf),
            )
        elif self.groups:
            warnings.append(NO_INTERVAL)
        details = {"n_reference": float(m), "n_held_out": float(k)}
        return (self._result(value, used, interval=interval, warnings=warnings, details=details),)

    def _cut(self, values: Tensor, times: int) -> Tensor:
        """Indices of all samples, or of `times * max_samples` drawn by the seed, in plan order."""
        n, most = len(values), times * self.max_samples
        if n <= most:
            return torch.arange(n)
        chosen = np.random.default_rng(self.seed).choice(n, most, replace=False)
        return torch.from_numpy(np.sort(chosen))


class CtScore(ThreeSets):
    """C_T of generated samples; far below 0, training data are copied.

    The interval is a delete-a-group jackknife with the cells held fixed. A number far from 0
    grows with the number of samples: compare only at equal numbers.
    """

    default_names = ("ct_score",)
    directions: tuple[bool | None, ...] = (None,)

    def __init__(
        self, dim: int, *, cells: int = CELLS, components: int = COMPONENTS, **kwargs: Any
    ) -> None:
        """`cells` and `components` as for `ct_score`; `kwargs` as for `PlannedMetric`."""
        super().__init__(dim, **kwargs)
        self.cells = whole_number("cells", cells, at_least=1)
        self.components = whole_number("components", components, at_least=1)

    def _results(self) -> tuple[Result, ...]:
        (train, held_out, generated), warnings = self._three(), list[str]()
        n, m, k = len(generated), len(train), len(held_out)
        try:
            if not (n and m and k):
                raise MetricError("expected generated, training and held-out samples; add samples")
            ranks = compare_cells(
                train,
                held_out,
                generated,
                cells=self.cells,
                components=self.components,
                seed=self.seed,
            )
            value = ranks.score()
        except MetricError as error:
            return self._refused(f"{error}; got {n} generated samples, {m} and {k} others", n)
        groups, interval = self._dense_groups(), None
        sizes = np.bincount(groups)
        if self.groups and len(sizes) > 1:
            replicates = [
                ranks.score(np.flatnonzero(groups != group)) for group in range(len(sizes))
            ]
            around = jackknife_interval(
                value, replicates, sizes, covers=COVERS_THREE, level=self.level
            )
            interval = replace(around, method=f"{around.method}, fixed cells")
        elif self.groups:
            warnings.append(NO_INTERVAL)
        details = {"n_reference": float(m), "n_held_out": float(k)}
        return (self._result(value, n, interval=interval, warnings=warnings, details=details),)
