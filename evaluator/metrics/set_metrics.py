"""Metrics that need every feature or logit in one place, as torchmetrics `Metric`s."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from evaluator.metrics.accumulators import FAKE, REAL, GatheredMetric
from evaluator.metrics.entropy import CellSums, cell_sums
from evaluator.metrics.intervals import (
    COVERS_ONE_SET,
    COVERS_SET,
    Integers,
    Interval,
    jackknife_interval,
)
from evaluator.metrics.kernel import GroupSums, PolynomialKernel, Subsets, kernel_sums
from evaluator.metrics.options import finite_number, optional_positive, whole_number
from evaluator.metrics.results import Result

NO_INTERVAL = "no interval: too few prompts to leave a group of them out"


class TwoSets(GatheredMetric):
    """Generated against real features, with a seeded subset above `max_samples` a side."""

    sides = (FAKE, REAL)

    def __init__(self, dim: int, *, max_samples: int = 50_000, **kwargs: Any) -> None:
        self.dim = whole_number("dim", dim, at_least=1)
        self.max_samples = whole_number("max_samples", max_samples, at_least=2)
        super().__init__(shape=(self.dim,), **kwargs)

    def _sets(self) -> tuple[Tensor, Integers, Tensor, list[str]]:
        """Generated features, their jackknife groups 0, 1, …, real features, and cautions."""
        # as they are held: what is computed widens them chunk by chunk, for half the memory
        fake, real = (self._in_plan_order(side, wide=False) for side in (FAKE, REAL))
        groups, cautions = self._group_of(self._clusters_in_plan_order()), []
        for name, values in (("generated", fake), ("reference", real)):
            if len(values) > self.max_samples:
                cautions.append(
                    f"computed on a seeded subset of {self.max_samples} of {len(values)} {name} "
                    "samples; raise max_samples to use more"
                )
            if len(values) > 1:
                constant = int((values == values[0]).all(dim=0).sum())
                if constant:
                    cautions.append(
                        f"{constant} of {self.dim} features are constant over the {name} samples"
                    )
        kept_fake, kept_real = self._kept()
        _, groups = np.unique(groups[kept_fake], return_inverse=True)
        return fake[kept_fake], groups, real[kept_real], cautions

    def _kept(self) -> tuple[Integers | slice, Integers | slice]:
        """Places, among the samples in plan order, of the generated and the real ones in use."""
        generator = np.random.default_rng(self.seed)
        fake, real = (
            self._subset(len(self._joined(f"{side}_positions")), generator) for side in self.sides
        )
        return fake, real

    def _names(self) -> tuple[Integers, Integers, Integers]:
        """Positions and prompts of the generated samples in use, positions of the real ones."""
        fake, real = self._kept()
        named = (
            ("fake_positions", FAKE, fake),
            ("fake_clusters", FAKE, fake),
            ("real_positions", REAL, real),
        )
        positions, clusters, places = (
            self._joined(name)[self._plan_order(side)].cpu().numpy()[kept]
            for name, side, kept in named
        )
        return positions, clusters, places

    def _subset(self, n: int, generator: np.random.Generator) -> Integers | slice:
        """All samples, or the indices of a random `max_samples` of them, in plan order."""
        if n <= self.max_samples:
            return slice(None)
        return np.sort(generator.choice(n, self.max_samples, replace=False))


class KernelDistance(TwoSets):
    """Kernel distance between generated and real features ("KID" on Inception features).

    The first result is the mean over subsets, which is what papers report, with the standard
    deviation over subsets in `details`. The second is the unbiased distance of all samples: the
    same expectation without the noise of the subsets. The interval of the second is a
    delete-a-group jackknife; that of the first is as wide, plus the variance of drawing the
    subsets, and centred on its own value.
    """

    default_names = ("kernel_distance", "kernel_distance_full")
    directions = (False, False)

    def __init__(
        self,
        dim: int,
        *,
        num_subsets: int = 100,
        subset_size: int = 1000,
        degree: int = 3,
        gamma: float | None = None,
        coef: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """Subsets and kernel as for `kernel_distance`; `kwargs` as for `PlannedMetric`."""
        super().__init__(dim, **kwargs)
        self.num_subsets = whole_number("num_subsets", num_subsets, at_least=1)
        self.subset_size = whole_number("subset_size", subset_size, at_least=2)
        self.kernel = PolynomialKernel(
            whole_number("degree", degree, at_least=1),
            optional_positive("gamma", gamma),
            finite_number("coef", coef),
        )

    def _results(self) -> tuple[Result, ...]:
        fake, groups, real, warnings = self._sets()
        n, m = len(fake), len(real)
        size = min(self.subset_size, n, m)
        if size < 2:
            return self._refused(
                f"expected at least 2 generated and 2 reference samples, got {n} and {m}; "
                "generate more samples or give a larger reference",
                n,
            )
        subsets = Subsets.drawn(n, m, self.num_subsets, size, self.seed)
        sums, (mean, std) = kernel_sums(
            fake, real, groups, int(groups.max()) + 1, self.kernel, subsets
        )
        full = self._interval(sums, 0.0)
        if self.groups and full is None:
            warnings.append(NO_INTERVAL)
        details: dict[str, float] = {"n_reference": m}
        unbiased = self._result(
            sums.unbiased(), n, index=1, interval=full, warnings=warnings, details=details
        )
        if size < self.subset_size:
            warnings.append(
                f"subsets of {size} instead of {self.subset_size} samples: there are only "
                f"{n} generated and {m} reference samples"
            )
        drawn = self._interval(sums, std**2 / self.num_subsets)
        moved = mean - sums.unbiased()
        result = self._result(
            mean,
            n,
            interval=drawn and replace(drawn, low=drawn.low + moved, high=drawn.high + moved),
            warnings=warnings,
            details={"std": std, "subset_size": size, **details},
        )
        return result, unbiased

    def _interval(self, sums: GroupSums, extra_variance: float) -> Interval | None:
        """The jackknife interval of the all-sample distance."""
        sizes = sums.sizes
        if not self.groups or len(sizes) < 2 or sizes.sum() - sizes.max() < 2:
            return None
        return jackknife_interval(
            sums.unbiased(),
            [sums.unbiased(leave_out=group) for group in range(len(sizes))],
            sizes,
            covers=COVERS_SET,
            level=self.level,
            extra_variance=extra_variance,
        )


class InceptionScore(GatheredMetric):
    """Inception score of generated samples from classifier logits.

    The value is the mean over splits; `details` has the standard deviation over splits and the
    score in a single split. The jackknife leaves out prompts inside fixed splits.
    """

    default_names = ("inception_score",)
    directions = (True,)

    def __init__(self, num_classes: int, *, splits: int = 10, **kwargs: Any) -> None:
        """`num_classes` columns of the logits; `kwargs` as for `PlannedMetric`."""
        self.num_classes = whole_number("num_classes", num_classes, at_least=2)
        self.splits = whole_number("splits", splits, at_least=1)
        super().__init__(shape=(self.num_classes,), **kwargs)

    def _results(self) -> tuple[Result, ...]:
        logits = self._in_plan_order(FAKE)
        n = len(logits)
        if n < self.splits:
            return self._refused(
                f"expected at least {self.splits} samples for {self.splits} splits, got {n}; "
                "lower splits or generate more samples",
                n,
            )
        warnings = []
        if n / self.splits < self.num_classes:
            warnings.append(
                f"{n / self.splits:.0f} samples in each of {self.splits} splits for "
                f"{self.num_classes} classes: a split's score cannot exceed its number of samples"
            )
        present, groups = np.unique(
            self._group_of(self._clusters_in_plan_order()), return_inverse=True
        )
        sums = cell_sums(logits, groups, len(present), splits=self.splits, seed=self.seed)
        value = sums.value()
        interval = self._interval(value.mean, sums)
        if self.groups and interval is None:
            warnings.append(NO_INTERVAL)
        details = {"std": value.std, "single_split": value.single_split}
        result = self._result(value.mean, n, interval=interval, warnings=warnings, details=details)
        return (result,)

    def _interval(self, value: float, sums: CellSums) -> Interval | None:
        """The jackknife interval; None where a split would be left without samples."""
        sizes = sums.counts.sum(axis=0)
        remaining = sums.counts.sum(axis=1, keepdims=True) - sums.counts
        if not self.groups or len(sizes) < 2 or remaining.min() < 1:
            return None
        left_out = [float(sums.scores(leave_out=group).mean()) for group in range(len(sizes))]
        return jackknife_interval(
            value,
            left_out,
            sizes,
            covers=COVERS_ONE_SET,
            level=self.level,
            bounds=(1.0, float(self.num_classes)),
        )
