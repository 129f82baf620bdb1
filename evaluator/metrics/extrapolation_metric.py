"""FID∞ as a torchmetrics `Metric`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.accumulators import FAKE, REAL, GatheredMetric
from evaluator.metrics.extrapolation import (
    LEAST_SAMPLES,
    NUM_POINTS,
    FrechetExtrapolation,
    fitted,
    prefix_moments,
    reference_sizes,
    subset_sizes,
)
from evaluator.metrics.fixed_gaussian import ACCURACY, FixedGaussian
from evaluator.metrics.frechet_metric import REPLICATE_ACCURACY, constant_cautions
from evaluator.metrics.intervals import Integers, Interval, jackknife_interval
from evaluator.metrics.moments import Moments
from evaluator.metrics.options import flag, whole_number
from evaluator.metrics.published import ReferenceMoments
from evaluator.metrics.reference import AgainstMoments, Reference, add_to_packed
from evaluator.metrics.results import Result

COVERS_INFINITY = (
    "the value extrapolated to infinitely many generated samples, over prompts and noise drawn "
    "like these, with the reference held fixed"
)


class FrechetInfinity(AgainstMoments, GatheredMetric):
    """Fréchet distance extrapolated to infinitely many generated samples; see `fid_infinity`.

    `details` has the fit: `slope`, `r_squared`, `smallest_n`. Generated features are gathered; of
    the reference only moments are, unless `subsample_reference` needs its features.

    The interval is a delete-a-group jackknife over prompts inside fixed subsets, at the cost of
    `groups` further fits.
    """

    default_names = ("fid_infinity",)
    directions = (False,)

    def __init__(
        self,
        dim: int,
        *,
        num_points: int = NUM_POINTS,
        subsample_reference: bool = False,
        **kwargs: Any,
    ) -> None:
        """Subsets as for `fid_infinity`; `kwargs` as for `PlannedMetric`."""
        self.num_points = whole_number("num_points", num_points, at_least=3)
        self.subsample_reference = flag("subsample_reference", subsample_reference)
        super().__init__(dim, shape=(dim,), **kwargs)

    def use_reference(self, moments: ReferenceMoments) -> None:
        """Compare with these moments instead of real samples; `reset` keeps them."""
        if self.subsample_reference:
            raise MetricError(
                "reference: expected real samples, which subsample_reference draws from, got "
                f"moments from {moments.origin}; set subsample_reference: false"
            )
        super().use_reference(moments)

    @property
    def shares_reference(self) -> bool:
        """Not where subsets are drawn of the real samples."""
        return not self.subsample_reference

    def _accept(self, values: Tensor, clusters: Tensor, side: str) -> None:
        if side == REAL and not self.subsample_reference:
            add_to_packed(self.reference, values)
        else:
            super()._accept(values, clusters, side)

    def get_extra_state(self) -> dict[str, Any]:
        """What decides the meaning of the states; saved with them."""
        return {**super().get_extra_state(), "subsample_reference": self.subsample_reference}

    def _results(self) -> tuple[Result, ...]:
        fake = self._in_plan_order(FAKE, wide=False)
        n, m = len(fake), self._num_reference()
        if self.subsample_reference:
            m = len(self._joined("real_positions"))
        if n < LEAST_SAMPLES or (m is not None and m < 2):
            return self._refused(
                f"expected at least {LEAST_SAMPLES} generated and 2 reference samples, got {n} "
                f"and {'unknown' if m is None else m}; generate more samples or give a larger "
                "reference",
                n,
            )
        generator = np.random.default_rng(self.seed)
        order, sizes = generator.permutation(n), subset_sizes(n, self.num_points)
        prefixes = list(prefix_moments(fake, order, sizes))
        references = self._references(sizes, generator)
        once = {id(each): FixedGaussian(each.mean, each.covariance) for each in references}
        fixed = [once[id(each)] for each in references]
        fit = _fit(prefixes, fixed, ACCURACY)
        groups = self._group_of(self._clusters_in_plan_order())
        interval, doubts = self._interval(fit, fake, groups, order, prefixes, fixed)
        last = references[-1]
        warnings = [
            *last.remarks,
            *self._cautions(fit, last),
            *constant_cautions("generated", prefixes[-1].mean, prefixes[-1].covariance()),
            *constant_cautions("reference", last.mean, last.covariance),
            *doubts,
        ]
        details = {
            "slope": fit.slope,
            "r_squared": fit.r_squared,
            "smallest_n": fit.sizes[0],
            **last.details,
        }
        return (self._result(fit.value, n, interval=interval, warnings=warnings, details=details),)

    def _references(self, sizes: Integers, generator: np.random.Generator) -> list[Reference]:
        """The reference of each subset."""
        if not self.subsample_reference:
            return [self._reference()] * len(sizes)
        real = self._in_plan_order(REAL, wide=False)
        order, shares = generator.permutation(len(real)), reference_sizes(sizes, len(real))
        return [
            Reference(moments.mean, moments.covariance(), moments.n)
            for moments in prefix_moments(real, order, shares)
        ]

    def _cautions(self, fit: FrechetExtrapolation, real: Reference) -> list[str]:
        """What a reader should know about the fit."""
        cautions = []
        if fit.sizes[0] <= self.dim:
            cautions.append(
                f"the smallest subset has {fit.sizes[0]} samples for {self.dim} features: there "
                "the distance is no straight line in 1/n; generate more samples"
            )
        if not self.subsample_reference and real.n is not None:
            cautions.append(
                f"the {real.n} reference samples are finite too, which adds about "
                f"{fit.slope / real.n:.3g} where they vary as the generated ones do; "
                "subsample_reference takes that off"
            )
        return cautions

    def _interval(
        self,
        fit: FrechetExtrapolation,
        fake: Tensor,
        groups: Integers,
        order: Integers,
        prefixes: list[Moments],
        references: list[FixedGaussian],
    ) -> tuple[Interval | None, list[str]]:
        """The jackknife interval, or why there is none.

        One subset at a time without one group is held beside the whole ones.
        """
        if not self.groups:
            return None, []
        present, counts = np.unique(groups, return_counts=True)
        dealt, sizes = groups[order], np.array(fit.sizes)
        left = [sizes - np.cumsum(dealt == group)[sizes - 1] for group in present]
        if len(present) < 2 or any(rest[0] < 2 or len(set(rest)) < 3 for rest in left):
            return None, ["no interval: too few prompts to leave a group of them out"]
        replicates = []
        for group in present:
            members = np.flatnonzero(dealt == group)
            within = np.searchsorted(members, sizes)
            parts = prefix_moments(fake, order[members], within)
            rest = (whole.without(part) for whole, part in zip(prefixes, parts, strict=True))
            replicates.append(_fit(rest, references, REPLICATE_ACCURACY).value)
        interval = jackknife_interval(
            fit.value, replicates, counts, covers=COVERS_INFINITY, level=self.level
        )
        return interval, []


def _fit(
    fakes: Iterable[Moments], references: list[FixedGaussian], accuracy: float
) -> FrechetExtrapolation:
    """The line through the distances of the subsets."""
    sizes, distances = [], []
    for fake, real in zip(fakes, references, strict=True):
        sizes.append(fake.n)
        distances.append(real.distance(fake, accuracy=accuracy))
    return fitted(sizes, distances)
