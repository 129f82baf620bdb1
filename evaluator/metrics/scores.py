"""Scores of single samples, and the number that a set of them gives."""

from __future__ import annotations

import numpy as np
import torch

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_float64
from evaluator.metrics.intervals import Floats
from evaluator.metrics.options import CLIP_VARIANTS, one_of


def clip_score(cosines: ArrayLike, *, variant: str = "mean") -> float:
    """The CLIPScore of (N,) cosines between image and text embeddings.

    - `mean`: 100 · mean cosine, from -100 to 100; the number that most papers print.
    - `clamped`: that number, or 0 if it is below 0; torchmetrics clamps the mean in this way.
    - `w2.5`: mean of 2.5 · max(cosine, 0), from 0 to 2.5 (Hessel et al. 2021, eq. 1).
    """
    value = float(sample_clip_scores(cosines, variant=variant).mean())
    return max(value, 0.0) if variant == "clamped" else value


def sample_clip_scores(cosines: ArrayLike, *, variant: str = "mean") -> Floats:
    """(N,) per-sample scores whose mean is the CLIPScore, before `clamped` clamps it."""
    one_of("variant", variant, choices=CLIP_VARIANTS)
    values = as_float64(cosines, "cosines")
    if values.ndim != 1 or len(values) == 0:
        raise MetricError(
            f"cosines: expected shape (samples,) with at least 1 sample, got "
            f"{tuple(values.shape)}; pass one cosine for each sample"
        )
    largest = float(torch.abs(values).max())
    if largest > 1.001:
        raise MetricError(
            f"cosines: expected values from -1 to 1, got one of size {largest:.4g}; "
            "normalise both embeddings, and do not scale the cosine"
        )
    array: Floats = values.cpu().numpy()
    return 2.5 * np.maximum(array, 0.0) if variant == "w2.5" else 100.0 * array
