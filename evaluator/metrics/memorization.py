"""Memorization: cosines between descriptors of generated images and of training images.

Zhang et al. 2024, "The emergence of reproducibility and consistency in diffusion models": two
images are the same when the inner product of their normalised SSCD descriptors (Pizzi et al. 2022)
exceeds 0.6. RP score: the share of pairs, made from the same noise by two models, that are the
same. Generalization score: the share of generated images that are the same as no training image.
What is left of 1 is called `memorized_fraction` here, never "M score", a name in use for both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_feature_sets
from evaluator.metrics.distances import PAIRS, as_rows, pieces, precisions
from evaluator.metrics.intervals import Floats, Integers
from evaluator.metrics.nearest import nearest
from evaluator.metrics.options import cosine_threshold

THRESHOLD = 0.6
"""The cosine of SSCD descriptors above which two images are the same."""


def memorized_fraction(
    train: ArrayLike, generated: ArrayLike, *, threshold: float = THRESHOLD
) -> float:
    """Share, 0 to 1, of (M, D) generated descriptors that repeat one of (N, D) training ones.

    A descriptor repeats another when their cosine exceeds `threshold`. Memory beyond the inputs
    is bounded by blocks.
    """
    cosine_threshold("threshold", threshold)
    first, second = as_feature_sets(train=train, generated=generated)
    return float((most_similar(first, second).cosines > threshold).mean())


def generalization_score(
    train: ArrayLike, generated: ArrayLike, *, threshold: float = THRESHOLD
) -> float:
    """Share, 0 to 1, of generated descriptors that repeat no training one."""
    return 1.0 - memorized_fraction(train, generated, threshold=threshold)


def rp_score(a: ArrayLike, b: ArrayLike, *, threshold: float = THRESHOLD) -> float:
    """Share, 0 to 1, of rows of `a` (N, D) whose cosine with the same row of `b` exceeds a limit.

    Row i of both must be made from the same noise (and prompt) by two models.
    """
    cosine_threshold("threshold", threshold)
    first, second = as_feature_sets(a=a, b=b)
    if len(first) != len(second):
        raise MetricError(
            f"b: expected {len(first)} samples, one for each of a, got {len(second)}; "
            "pass pairs in the same order"
        )
    return float((paired_cosines(first, second) > threshold).mean())


def paired_cosines(a: Tensor, b: Tensor) -> Floats:
    """(N,) cosine of each row of `a` with the same row of `b`."""
    everyone = np.arange(len(a))
    return Cosines(a, b, ("a", "b")).cosines(everyone, everyone)


class MostSimilar(NamedTuple):
    """What each of M generated samples is most like."""

    cosines: Floats
    """(M,) largest cosine with a training sample, -1 to 1."""
    nearest: Integers
    """(M,) index of that training sample, the first of equals."""


def most_similar(train: Tensor, generated: Tensor) -> MostSimilar:
    """The training sample most similar to each generated one."""
    found = nearest(Cosines(generated, train, ("generated", "train")), 1)
    return MostSimilar(-found.keys[:, 0], found.indices[:, 0])


class Cosines:
    """Negative cosines as a `Screen`: the most similar pair is the nearest."""

    floor = -np.inf

    def __init__(self, rows: Tensor, columns: Tensor, names: tuple[str, str]) -> None:
        """(N, D) and (M, D) features; `names` for messages."""
        self.rows, self.columns = rows, columns
        self.shape = (len(rows), len(columns))
        self.lengths = _lengths(rows, names[0]), _lengths(columns, names[1])
        self.precisions = precisions(1.0)

    def approximate(self, rows: slice, columns: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Approximate negative cosines of a block and a bound of their errors."""
        a, b = (
            (values[piece].to(torch.float64) / lengths[piece, None]).to(dtype)
            for values, piece, lengths in zip(
                (self.rows, self.columns), (rows, columns), self.lengths, strict=True
            )
        )
        keys = (a @ b.T).neg_()
        bound = 4.0 * (a.shape[1] + 16) * torch.finfo(dtype).eps
        return keys, torch.full_like(keys, bound)

    def exact(self, rows: Integers, columns: Integers) -> Floats:
        """(P,) negative cosines of pairs."""
        return -self.cosines(rows, columns)

    def cosines(self, rows: Integers, columns: Integers) -> Floats:
        """(P,) cosines of pairs, each summed by itself in float64."""
        lengths = [values.cpu().numpy() for values in self.lengths]
        cosines = np.empty(len(rows))
        for start in range(0, len(rows), PAIRS):
            i, j = rows[start : start + PAIRS], columns[start : start + PAIRS]
            a = as_rows(self.rows, i) / lengths[0][i, None]
            b = as_rows(self.columns, j) / lengths[1][j, None]
            cosines[start : start + PAIRS] = np.multiply(a, b).sum(axis=1)
        return np.clip(cosines, -1.0, 1.0)


def _lengths(values: Tensor, name: str) -> Tensor:
    """(N,) float64 lengths, which must not be 0."""
    lengths = torch.empty(len(values), dtype=torch.float64, device=values.device)
    for piece in pieces(len(values)):
        part = values[piece].to(torch.float64)
        # by the largest first: the square of a tiny number would be 0
        largest = part.abs().amax(dim=1)
        lengths[piece] = largest * (part / largest[:, None].clamp_min(1e-300)).norm(dim=1)
    missing = int((lengths == 0).sum())
    if missing:
        raise MetricError(
            f"{name}: expected features other than zero, which have a direction, got {missing} "
            "samples of zeros; recompute their features or leave them out"
        )
    return lengths
