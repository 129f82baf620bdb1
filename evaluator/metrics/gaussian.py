"""CMMD: the squared MMD of unit-length embeddings under a Gaussian kernel.

Jayasumana et al. 2024, eq. 4-5: k(x, y) = exp(-‖x - y‖² / 2σ²) with σ = 10, times 1000, on CLIP
ViT-L/14 embeddings at 336 pixels. As in their code the estimator is the V-statistic, which keeps
the diagonal: never below 0, and biased upwards by an amount of order 1/N.

Deviation, in rounding only: k - 1 is summed instead of k. The ones cancel in the distance, and
with σ = 10 they are all but the last two digits of k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluator.metrics.arrays import ArrayLike, Directions, as_feature_sets
from evaluator.metrics.kernel import GroupSums, group_sums
from evaluator.metrics.options import positive_number

SIGMA = 10.0
"""Width of the kernel in the paper."""
SCALE = 1000.0
"""What the paper multiplies the distance by, to make it readable."""


@dataclass(frozen=True, slots=True)
class GaussianExcess:
    """k(x, y) - 1 of the Gaussian kernel of vectors of length 1: 0 for equal ones."""

    sigma: float = SIGMA

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, D) and (M, D) → (N, M); ‖x - y‖² = 2 - 2 x·y."""
        return torch.addmm(x.new_full((1, 1), -1.0), x, y.T).div_(self.sigma**2).expm1_()


def cmmd(real: ArrayLike, fake: ArrayLike, *, sigma: float = SIGMA, scale: float = SCALE) -> float:
    """`scale` · MMD² of (N, D) and (M, D) embeddings of any length, normalised here.

    0 or more, symmetric. Memory beyond the inputs is bounded by chunks of rows.
    """
    first, second = as_feature_sets(real=real, fake=fake)
    width, factor = positive_number("sigma", sigma), positive_number("scale", scale)
    units = Directions(first, "real"), Directions(second, "fake")
    alone = np.zeros(len(second), dtype=np.int64)
    return factor * biased(group_sums(units[1], units[0], alone, 1, GaussianExcess(width)))


def biased(sums: GroupSums, *, leave_out: int | None = None) -> float:
    """The V-statistic of sums of `GaussianExcess`, of all groups or of all but one.

    The diagonal, which the sums leave out, is 0. Rounding may leave the value a hair below 0.
    """
    kept = np.arange(len(sums.sizes)) != (-1 if leave_out is None else leave_out)
    n, m = int(sums.sizes[kept].sum()), sums.n_second
    within = float(sums.within[np.ix_(kept, kept)].sum()) / n**2
    cross = float(sums.cross[kept].sum()) / (n * m)
    return max(within + sums.second / m**2 - 2.0 * cross, 0.0)
