"""Count, mean and centred second moment of a set of features, and how two sets become one.

Raw sums of x and x xᵀ lose everything when the mean is large against the spread; moments about
the mean do not (Chan, Golub, LeVeque 1979, eq. 2.1).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_matrix

CHUNK_ROWS = 8192
"""Features that are centred at one time."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """The moments of N features of dimension D, float64."""

    n: int
    """Number of samples."""
    mean: Tensor
    """(D,) mean; zeros when there are no samples."""
    m2: Tensor
    """(D, D) sum of (x - mean)(x - mean)ᵀ."""

    @classmethod
    def empty(cls, dim: int, *, device: torch.device | None = None) -> Moments:
        """No samples: merging it changes nothing."""
        zeros = torch.zeros(dim, dim, dtype=torch.float64, device=device)
        return cls(0, zeros.new_zeros(dim), zeros)

    @classmethod
    def from_features(cls, features: ArrayLike) -> Moments:
        """Of (N, D) features, any float dtype; N may be 0."""
        given = features if isinstance(features, Tensor) else torch.from_numpy(np.asarray(features))
        if given.ndim != 2 or len(given) <= CHUNK_ROWS:
            return cls._of(as_matrix(given, "features", at_least=0))
        # float32 features are widened a chunk at a time
        starts = range(0, len(given), CHUNK_ROWS)
        chunks = (as_matrix(given[start : start + CHUNK_ROWS], "features") for start in starts)
        return functools.reduce(cls.merge, map(cls._of, chunks))

    @classmethod
    def _of(cls, values: Tensor) -> Moments:
        """Of a checked (N, D) float64 tensor."""
        if len(values) == 0:
            return cls.empty(values.shape[1], device=values.device)
        mean = values.mean(dim=0)
        centred = values - mean
        return cls(len(values), mean, centred.T @ centred)

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together."""
        if self.mean.shape != other.mean.shape:
            raise MetricError(
                f"moments: expected dimension {len(self.mean)}, got {len(other.mean)}; "
                "merge features of one extractor only"
            )
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        n = self.n + other.n
        delta = other.mean - self.mean
        m2 = (self.m2 + other.m2).addr_(delta, delta, alpha=self.n * other.n / n)
        return Moments(n, self.mean + delta * (other.n / n), m2)

    def without(self, part: Moments) -> Moments:
        """The inverse of `merge`: these moments less those of a part of the samples.

        It loses digits when `part` is nearly all there is, which a jackknife's group is not.
        """
        n = self.n - part.n
        if n < 0:
            raise MetricError(
                f"moments: expected a part of {self.n} samples, got one of {part.n}; swap them"
            )
        if part.n == 0 or n == 0:
            return self if part.n == 0 else Moments.empty(len(self.mean), device=self.mean.device)
        mean = self.mean + (self.mean - part.mean) * (part.n / n)
        delta = part.mean - mean
        m2 = (self.m2 - part.m2).addr_(delta, delta, alpha=-n * part.n / self.n)
        return Moments(n, mean, m2)

    def covariance(self) -> Tensor:
        """(D, D) unbiased covariance, divided by N - 1."""
        if self.n < 2:
            raise MetricError(f"covariance: expected at least 2 samples, got {self.n}; add samples")
        return self.m2 / (self.n - 1)
