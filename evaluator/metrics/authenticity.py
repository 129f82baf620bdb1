"""AuthPct: the share of generated samples that are no near copies of training samples.

Alaa et al. 2022, section 3.2: a generated sample is authentic when the training sample nearest to
it has another training sample nearer. Distances are Euclidean and decided by the direct formula.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_pair
from evaluator.metrics.intervals import Integers
from evaluator.metrics.neighbours import Points, chunks, exact_distances, neighbour_radii


def authpct(train: ArrayLike, generated: ArrayLike) -> float:
    """Percentage of the (M, D) generated samples that are authentic, given (N, D) train samples.

    Exact copies give 0, samples far from all training samples 100. Of training samples at the same
    distance the first counts. N is at least 2; memory is bounded by chunks.
    """
    first, second = as_pair(train, generated, ("train", "generated"))
    return 100.0 * float(authentic(first, second).mean())


def authentic(train: Tensor, generated: Tensor) -> NDArray[np.bool_]:
    """(M,) whether each generated sample is farther from its training sample than any other is."""
    if len(train) < 2:
        raise MetricError(
            f"train: expected at least 2 samples, got {len(train)}; add training samples"
        )
    centre = train.mean(dim=0)
    known, new = Points.of(train, centre), Points.of(generated, centre)
    own = neighbour_radii(known, np.zeros(len(train), dtype=np.int64), 0, 1)[0]
    answers = np.empty(len(generated), dtype=np.bool_)
    for start, squared in chunks(new, known):
        rows = slice(start, start + len(squared))
        # all that rounding could have put behind the nearest
        doubt = 2.0 * (new.doubt[rows] + known.doubt.max())
        near = squared <= (squared.amin(dim=1) + doubt)[:, None]
        i, j = (index.cpu().numpy() for index in torch.nonzero(near, as_tuple=True))
        distance, nearest = _nearest(exact_distances(new.given, known.given, i + start, j), i, j)
        answers[rows] = distance > own[nearest]
    return answers


def _nearest(
    distance: NDArray[np.float64], i: Integers, j: Integers
) -> tuple[NDArray[np.float64], Integers]:
    """Of candidate pairs (P,), for each row the smallest distance and the first column at it."""
    order = np.lexsort((j, distance, i))
    _, first = np.unique(i[order], return_index=True)
    return distance[order][first], j[order][first]
