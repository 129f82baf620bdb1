"""Diversity within a prompt: how far apart the images of one prompt are, on average.

The mean distance of all pairs of images of a prompt, then the mean over prompts (as reported for
LPIPS by Zhu et al. 2017, section 5.2, here on any features). Unlike Vendi's score it says nothing
about differences between prompts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike as NumpyLike
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_directions, as_feature_sets
from evaluator.metrics.distances import pieces
from evaluator.metrics.intervals import Floats, Integers
from evaluator.metrics.options import DISTANCES, one_of


class PromptDiversity(NamedTuple):
    """Diversity prompt by prompt."""

    prompts: Integers
    """(P,) numbers of the prompts with at least two images, ascending."""
    distances: Floats
    """(P,) mean distance of the pairs of images of each."""
    num_images: int
    """Images of these prompts."""
    num_single: int
    """Prompts with one image, which has no distance."""


def within_prompt_diversity(
    features: ArrayLike, clusters: NumpyLike, *, distance: str = "cosine"
) -> float:
    """Mean over prompts of the mean pairwise distance of a prompt's (N, D) features.

    `clusters` (N,) are prompt numbers; a prompt with one image is left out. `distance` is
    `cosine`, 1 − cos from 0 to 2, or `euclidean`, 0 and above.
    """
    (values,) = as_feature_sets(features=features)
    found = prompt_diversity(values, np.asarray(clusters), distance=distance)
    if not len(found.prompts):
        raise MetricError(
            "clusters: expected a prompt with at least 2 samples, got none; "
            "generate more images for each prompt"
        )
    return float(found.distances.mean())


def prompt_diversity(
    features: Tensor, clusters: np.ndarray[Any, Any], *, distance: str
) -> PromptDiversity:
    """The diversity of each prompt with at least two samples."""
    one_of("distance", distance, choices=DISTANCES)
    if clusters.shape != (len(features),):
        raise MetricError(
            f"clusters: expected {len(features)} prompt numbers, one for each sample, got "
            f"shape {clusters.shape}; pass one number a sample"
        )
    order = np.argsort(clusters, kind="stable")
    prompts, starts, counts = np.unique(clusters[order], return_index=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    distances = np.empty(len(several))
    for place, index in enumerate(several):
        members = order[starts[index] : starts[index] + counts[index]]
        chosen = features[torch.from_numpy(members).to(features.device)].to(torch.float64)
        distances[place] = _mean_distance(chosen, distance)
    return PromptDiversity(
        prompts[several].astype(np.int64),
        distances,
        int(counts[several].sum()),
        int((counts == 1).sum()),
    )


def _mean_distance(values: Tensor, distance: str) -> float:
    """Over all pairs of (m, D) float64 samples."""
    if distance == "cosine":
        values = as_directions(values, "features")
    total, m = 0.0, len(values)
    for piece in pieces(m):
        # without a matrix product: copies are exactly 0 apart
        apart = torch.cdist(values[piece], values, compute_mode="donot_use_mm_for_euclid_dist")
        # for directions, 1 − cos = ‖u − v‖² / 2
        total += float((apart.square() / 2.0 if distance == "cosine" else apart).sum())
    return total / (m * (m - 1))
