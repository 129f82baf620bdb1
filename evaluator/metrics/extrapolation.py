"""FID∞: the Fréchet distance extrapolated to infinitely many generated samples.

Chong and Forsyth 2020, section 3.2: the distance of n samples exceeds that of infinitely many by
a bias that is proportional to 1/n to first order. So distances of subsets of growing size are
fitted by a line in 1/n, and the intercept is taken. Sizes as in dgm-eval (Stein et al. 2023).

Deviation: the subsets are nested, the first n of one random order, where the paper draws each
anew. So moments are accumulated once, and neighbouring distances share their noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_matrix
from evaluator.metrics.frechet import frechet_distance
from evaluator.metrics.intervals import Floats, Integers
from evaluator.metrics.moments import Moments
from evaluator.metrics.options import whole_number
from evaluator.metrics.published import ReferenceMoments

NUM_POINTS = 15
"""Subsets in dgm-eval and in the paper's code."""
SMALLEST = 5_000
"""The smallest subset, where there are ten times as many samples."""
LEAST_SAMPLES = 4
"""Fewer make no three subsets of different sizes."""


class FrechetExtrapolation(NamedTuple):
    """The fit FD(n) = value + slope / n."""

    value: float
    """The distance at infinitely many generated samples; noise may put it below 0."""
    slope: float
    """What the distance at n samples exceeds `value` by, times n."""
    r_squared: float
    """Share of the distances' variance that the line explains."""
    sizes: tuple[int, ...]
    """Number of samples in each subset, rising."""
    distances: tuple[float, ...]
    """The Fréchet distance of each subset."""


def fid_infinity(
    real: ArrayLike | ReferenceMoments,
    fake: ArrayLike,
    *,
    num_points: int = NUM_POINTS,
    seed: int = 0,
    subsample_reference: bool = False,
) -> FrechetExtrapolation:
    """FID∞ of (M, D) real features, or given moments, and (N, D) fake ones; N is at least 4.

    As published, all subsets are compared with the whole reference, whose own finite size stays
    in the number: about slope / M where the reference varies as the samples do. Two samples of
    one distribution then do not give 0. With `subsample_reference` the reference is cut to the
    same share, and they do; it then has to be features. Subsets are drawn by `seed`.
    """
    features = as_matrix(fake, "fake", at_least=LEAST_SAMPLES)
    generator = np.random.default_rng(seed)
    sizes = subset_sizes(len(features), num_points)
    prefixes = prefix_moments(features, generator.permutation(len(features)), sizes)
    if isinstance(real, ReferenceMoments):
        if subsample_reference:
            raise MetricError(
                "subsample_reference: expected features to draw from, got moments of "
                f"{real.origin}; pass the features or leave it out"
            )
        whole = torch.from_numpy(real.mean), torch.from_numpy(real.covariance)
        references: Iterable[tuple[Tensor, Tensor]] = [whole] * len(sizes)
    else:
        others = as_matrix(real, "real", at_least=2)
        order, shares = np.arange(len(others)), np.full_like(sizes, len(others))
        if subsample_reference:
            order = generator.permutation(len(others))
            shares = reference_sizes(sizes, len(others))
        found = prefix_moments(others, order, shares)
        references = ((moments.mean, moments.covariance()) for moments in found)
    distances = [
        frechet_distance(fakes.mean, fakes.covariance(), *reference)
        for fakes, reference in zip(prefixes, references, strict=True)
    ]
    return fitted(sizes, distances)


def subset_sizes(n: int, num_points: int = NUM_POINTS) -> Integers:
    """Rising subset sizes: linspace(min(5000, max(n / 10, 2)), n), each once."""
    whole_number("num_points", num_points, at_least=3)
    smallest = min(SMALLEST, max(n / 10, 2))
    return np.unique(np.linspace(smallest, n, num_points).astype(np.int64))


def reference_sizes(sizes: Integers, num_reference: int) -> Integers:
    """The same shares of a reference, rounded, at least 2 samples each."""
    shares = np.rint(sizes / sizes[-1] * num_reference).astype(np.int64)
    least: Integers = np.maximum(shares, 2)
    return least


def prefix_moments(values: Tensor, order: Integers, sizes: Integers) -> Iterator[Moments]:
    """The moments of the first n samples in `order` (N,), for each n of the rising `sizes`."""
    merged = Moments.empty(values.shape[1], device=values.device)
    for start, end in zip((0, *sizes[:-1]), sizes, strict=True):
        added = torch.from_numpy(order[start:end]).to(values.device)
        merged = merged.merge(Moments.from_features(values[added]))
        yield merged


def fitted(sizes: Integers | list[int], values: list[float]) -> FrechetExtrapolation:
    """Ordinary least squares of the distances on 1/n."""
    x, y = 1.0 / np.asarray(sizes, dtype=np.float64), np.array(values)
    from_mean: Floats = x - x.mean()
    slope = float(from_mean @ y / (from_mean @ from_mean))
    value = float(y.mean() - slope * x.mean())
    total = float(np.square(y - y.mean()).sum())
    left = float(np.square(y - value - slope * x).sum())
    explained = 1.0 - left / total if total > 0 else 1.0
    return FrechetExtrapolation(
        value, slope, explained, tuple(int(size) for size in sizes), tuple(values)
    )
