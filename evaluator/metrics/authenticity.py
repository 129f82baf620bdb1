"""AuthPct: the share of generated samples that are no near copies of training samples.

Alaa et al. 2022, section 3.2: a generated sample is authentic when the training sample nearest to
it has another training sample nearer. Distances are Euclidean and decided by the direct formula.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_feature_sets
from evaluator.metrics.distances import Booleans, Distances, points_of
from evaluator.metrics.intervals import Integers
from evaluator.metrics.nearest import nearest, nearest_others


class Authenticity(NamedTuple):
    """What AuthPct says about each of M generated samples."""

    authentic: Booleans
    """(M,) whether the nearest training sample has another one nearer."""
    nearest: Integers
    """(M,) index of that training sample."""
    num_copies: int
    """Training samples that another training sample equals: nothing can be nearer to them."""


def authpct(train: ArrayLike, generated: ArrayLike) -> float:
    """Percentage of the (M, D) generated samples that are authentic, given (N, D) train samples.

    Exact copies give 0, samples far from all training samples 100. Of training samples at the same
    distance the first counts. N is at least 2; memory beyond the inputs is bounded by blocks.
    A generated sample nearest to a training sample that occurs twice counts as authentic unless
    it equals it.
    """
    first, second = as_feature_sets(train=train, generated=generated)
    return 100.0 * float(authenticity(first, second).authentic.mean())


def authenticity(train: Tensor, generated: Tensor) -> Authenticity:
    """Which of (M, D) generated samples are authentic, and what they are nearest to."""
    if len(train) < 2:
        raise MetricError(
            f"train: expected at least 2 samples, got {len(train)}; add training samples"
        )
    known, new = points_of(train, generated)
    own = nearest_others(known, 1).keys[:, 0]
    found = nearest(Distances(new, known), 1)
    index = found.indices[:, 0]
    return Authenticity(found.keys[:, 0] > own[index], index, int((own == 0).sum()))
