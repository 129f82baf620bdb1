"""MIFID: a Fréchet distance that copies of the training set do not improve.

Bai et al. 2021, eq. 3-5: the distance divided by the mean, over the generated samples, of the
cosine distance 1 - |x·y| / ‖x‖‖y‖ to the nearest training sample, where that mean is below a
threshold; above it nothing is divided. A lower number is better, and memorizing raises it.

Deviations: features of zeros, which have no direction, are an error where torchmetrics leaves
them out; and torchmetrics 1.9 averages over the training samples the distance to the nearest
generated one, which is this definition with the two sets exchanged.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evaluator.metrics.arrays import ArrayLike, as_directions, as_pair
from evaluator.metrics.frechet import frechet_distance_from_features
from evaluator.metrics.intervals import Floats, Integers
from evaluator.metrics.options import share

CHUNK_ELEMENTS = 1 << 22
"""Cosines that are held at one time: 32 MiB."""
ROWS = 1024
"""Generated samples whose cosines are computed at one time."""
COSINE_DISTANCE_EPS = 0.1
"""Threshold of the mean distance in the paper's code."""
TINY = 1e-14
"""Added to the mean distance, as in the paper's code: exact copies give a large number, no inf."""
NO_DISTANCE = 1e-8
"""A Fréchet distance below this is 0, copies or not, as in torchmetrics."""


def mifid(
    train: ArrayLike, generated: ArrayLike, *, cosine_distance_eps: float = COSINE_DISTANCE_EPS
) -> float:
    """MIFID of (N, D) training and (M, D) generated features, 0 or more; N and M at least 2.

    `cosine_distance_eps` is the threshold, above 0 and at most 1. Memory beyond the inputs is
    bounded by chunks.
    """
    threshold = share("cosine_distance_eps", cosine_distance_eps)
    first, second = as_pair(train, generated, ("train", "generated"), at_least=2)
    mean = float(memorization_distances(first, second).mean())
    return penalized(frechet_distance_from_features(first, second), mean, threshold)


def memorization_distances(train: Tensor, generated: Tensor) -> Floats:
    """(M,) cosine distance of each (M, D) generated sample to the nearest (N, D) training one.

    From 0 to 1; float tensors of any width, computed in float64.
    """
    nearest = torch.zeros(len(generated), dtype=torch.float64, device=generated.device)
    columns = max(1, CHUNK_ELEMENTS // ROWS)
    for left in range(0, len(train), columns):
        known = as_directions(train[left : left + columns].to(torch.float64), "train")
        for top in range(0, len(generated), ROWS):
            rows = slice(top, top + ROWS)
            new = as_directions(generated[rows].to(torch.float64), "generated")
            cosines = (new @ known.T).abs_().amax(dim=1)
            nearest[rows] = torch.maximum(nearest[rows], cosines)
    distances: Floats = (1.0 - nearest).clamp(min=0.0).cpu().numpy()
    return distances


def penalized(distance: float, memorization: float, threshold: float) -> float:
    """A Fréchet distance over the mean memorization distance, where that is below the threshold."""
    if distance <= NO_DISTANCE:
        return 0.0
    return distance / ((memorization if memorization < threshold else 1.0) + TINY)


def mean_without(values: Floats, groups: Integers) -> Floats:
    """(G,) the mean of `values` (M,) without each group."""
    sums, sizes = np.bincount(groups, weights=values), np.bincount(groups)
    means: Floats = (sums.sum() - sums) / (len(values) - sizes)
    return means
