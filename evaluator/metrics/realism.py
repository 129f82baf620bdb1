"""Realism: how far inside the real images' neighbourhoods each generated sample lies.

Kynkäänniemi et al. 2019, section 5, eq. 3: the largest ratio of a ball's radius to the sample's
distance from its centre, over the real balls whose radius is below the median. At least 1: the
sample lies inside some ball. The paper's figures take k = 3.

Deviations: a ball of radius 0 (more than k copies of one real sample) is no neighbourhood and is
left out first; where ties leave no radius below the median, those equal to it serve. A sample
that equals the centre of a ball has infinite realism, where the authors' code adds 1e-18.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_feature_sets
from evaluator.metrics.distances import Distances, Points, points_of
from evaluator.metrics.intervals import Floats, Integers
from evaluator.metrics.nearest import nearest, nearest_others
from evaluator.metrics.options import whole_number


def realism_scores(real: ArrayLike, fake: ArrayLike, *, k: int = 3) -> Floats:
    """(M,) float64 realism of (M, D) fake features, given (N, D) real ones, N above k.

    0 and above, infinite for copies of real samples. Memory beyond the inputs is bounded by blocks.
    """
    whole_number("k", k, at_least=1)
    first, second = as_feature_sets(real=real, fake=fake)
    if len(first) <= k:
        raise MetricError(
            f"real: expected more than k={k} samples, got {len(first)}; lower k or add samples"
        )
    known, new = points_of(first, second)
    radii = nearest_others(known, k).keys[:, -1]
    chosen = _small_balls(radii, k)
    found = nearest(Ratios(new, known.take(chosen), radii[chosen]), 1)
    with np.errstate(divide="ignore"):
        scores: Floats = 1.0 / np.sqrt(found.keys[:, 0])
    return scores


def _small_balls(radii: Floats, k: int) -> Integers:
    """Indices of the balls with a radius below the median."""
    proper = radii > 0.0
    if not proper.any():
        raise MetricError(
            f"real: expected samples with fewer than k={k} copies, got none; "
            "drop the copies or raise k"
        )
    median = np.median(radii[proper])
    below = proper & (radii < median)
    return np.flatnonzero(below if below.any() else proper & (radii <= median))


class Ratios:
    """Squared distance over squared radius of the column's ball, as a `Screen`."""

    floor = 0.0

    def __init__(self, rows: Points, columns: Points, radii: Floats) -> None:
        """`radii` (columns,) are squared and above 0."""
        self.distances, self.radii = Distances(rows, columns), radii
        self.shape = self.distances.shape
        usual = radii.min() > 1e-30 and radii.max() < 1e30
        self.precisions = self.distances.precisions if usual else (torch.float64,)

    def approximate(self, rows: slice, columns: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Approximate ratios of a block and bounds of their errors."""
        squared, doubt = self.distances.approximate(rows, columns, dtype)
        scale = torch.from_numpy(1.0 / self.radii[columns]).to(squared)
        return squared * scale, doubt * scale

    def exact(self, rows: Integers, columns: Integers) -> Floats:
        """Ratios of pairs by the direct formula."""
        return self.distances.exact(rows, columns) / self.radii[columns]
