"""Paths between two latents, and how smoothly features change along them.

Latents of high dimension lie near a sphere. The straight line between two of them cuts through
it: halfway, independent ones have 1/√2 of the norm that the denoiser was trained on. The great
circle keeps it (Shoemake 1985; for diffusion models Song et al. 2021, DDIM, appendix D.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor

NEARLY_PARALLEL = 0.9995
"""Cosine from which on the great circle is the line, and its formula divides by nearly nothing."""
JUMP_FACTOR = 3.0
"""A step is a jump when it is longer than this many median steps of its path."""
MIN_STEPS = 4
"""Steps that a path needs before one of them can be called a jump."""


class PathSmoothness(NamedTuple):
    """A path through a feature space, by the distances of consecutive points."""

    length: float
    """Sum of the steps."""
    direct: float
    """Distance of the two ends."""
    ratio: float
    """length / direct: 1 for a straight line; NaN where the ends are one point."""
    largest_step: float
    """The longest step over the median step; NaN where the median is 0."""
    jumps: tuple[int, ...]
    """Steps longer than `JUMP_FACTOR` medians, from 0; none is looked for in a path of fewer
    than `MIN_STEPS`."""
    steps: tuple[float, ...]
    """Length of each step."""


def lerp(first: Tensor, last: Tensor, weights: Sequence[float]) -> Tensor:
    """Points of the line between two latents (…): (T, …), from weight 0 at the first."""
    import torch

    return torch.stack([(1 - weight) * first + weight * last for weight in weights])


def slerp(first: Tensor, last: Tensor, weights: Sequence[float]) -> Tensor:
    """Points of the great circle between two latents (…): (T, …), at even angles.

    sin((1−w)Ω)/sin Ω · first + sin(wΩ)/sin Ω · last, Ω the angle between them (Shoemake 1985);
    the line where they are nearly parallel. Opposite ones have no one circle and are refused.
    """
    import torch

    a, b = first.double().flatten(), last.double().flatten()
    cosine = float(a @ b / (a.norm() * b.norm()).clamp_min(1e-300))
    if cosine > NEARLY_PARALLEL:
        return lerp(first, last, weights)
    if cosine < -NEARLY_PARALLEL:
        raise ProbeError(
            "Expected two ends between which one shortest way leads; got opposite ones, between "
            "which all ways are equally short. Choose another end."
        )
    angle = torch.arccos(torch.tensor(cosine, dtype=torch.float64))
    points = [
        (torch.sin((1 - w) * angle) * a + torch.sin(w * angle) * b) / torch.sin(angle)
        for w in weights
    ]
    return torch.stack(points).view(-1, *first.shape).to(first.dtype)


def norm_ratio(points: Tensor) -> float:
    """‖middle point‖ over the mean norm of the ends, of a path (T, …)."""
    norms = points.double().flatten(1).norm(dim=1)
    return float(norms[len(norms) // 2] / ((norms[0] + norms[-1]) / 2))


def path_smoothness(features: ArrayLike) -> PathSmoothness:
    """Euclidean lengths along (T, D) features of consecutive points."""
    points = np.asarray(features, dtype=np.float64)
    if points.ndim != 2 or len(points) < 2:
        raise ProbeError(f"Expected features (T, D) of at least 2 points, got {points.shape}.")
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    direct = float(np.linalg.norm(points[-1] - points[0]))
    median = float(np.median(steps))
    jumps: tuple[int, ...] = ()
    if len(steps) >= MIN_STEPS:
        jumps = tuple(np.flatnonzero(steps > JUMP_FACTOR * median).tolist())
    return PathSmoothness(
        float(steps.sum()),
        direct,
        float(steps.sum()) / direct if direct > 0 else float("nan"),
        float(steps.max()) / median if median > 0 else float("nan"),
        jumps,
        tuple(steps.tolist()),
    )
