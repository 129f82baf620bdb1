"""How unusual samples are against a reference set, by several scores, and how far to trust them.

    euclidean     distance to the mean
    mahalanobis   distance to the mean in standard deviations, by the pseudo-inverse: directions in
                  which the reference does not vary count for nothing
    neighbours    distance to the k-th nearest reference sample (Sun et al. 2022, "Out-of-
                  distribution detection with deep nearest neighbors", without normalising)
    residual      length outside of the principal components that hold 95 % of the variance

None wins everywhere: a shift of all directions is the Mahalanobis distance's once there are many
more samples than dimensions, one along the leading directions is that of the others. So all are
reported, each against the scores of reference samples that it was not fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from evaluator.errors import ProbeError

Floats = NDArray[np.float64]

SCORES = ("euclidean", "mahalanobis", "neighbours", "residual")
NEIGHBOUR = 5
VARIANCE_KEPT = 0.95
HELD_OUT = 0.2
"""Share of the reference that calibrates."""
FEW = 100
"""Below as many reference samples no score is steady."""
CHUNK = 1024


class Calibration(NamedTuple):
    """A reference in two parts; positions in its order, ascending."""

    fitted: NDArray[np.int64]
    held_out: NDArray[np.int64]


class Auroc(NamedTuple):
    """Probability that an outlier scores above a usual sample, ties counted half."""

    value: float
    low: float
    """Of a 95 % interval."""
    high: float


@dataclass(frozen=True, slots=True)
class FittedReference:
    """What the scores need of the reference samples they are fitted to."""

    samples: Floats
    """(N, D)."""
    mean: Floats
    """(D,)."""
    directions: Floats
    """(R, D) orthonormal: the principal directions in which the samples vary."""
    deviations: Floats
    """(R,) standard deviations along them, descending."""
    num_kept: int
    """How many of them hold `VARIANCE_KEPT` of the variance."""

    def scores(self, features: ArrayLike) -> dict[str, Floats]:
        """(M, D) samples => each score (M,) float64, larger for the more unusual."""
        samples = _as_samples(features, "features")
        if samples.shape[1] != len(self.mean):
            raise ProbeError(
                f"expected features of {len(self.mean)} dimensions, as the reference has, got "
                f"{samples.shape[1]}; use the same extractor for both"
            )
        centred = samples - self.mean
        along = centred @ self.directions.T
        kept = self.directions[: self.num_kept]
        outside = centred - along[:, : self.num_kept] @ kept
        if self.num_kept == len(self.mean):
            outside = np.zeros_like(outside)  # nothing is left out; rounding would rank samples
        return {
            "euclidean": np.linalg.norm(centred, axis=1),
            "mahalanobis": np.linalg.norm(along / self.deviations, axis=1),
            "neighbours": _distance_to_neighbour(centred, self.samples - self.mean),
            "residual": np.linalg.norm(outside, axis=1),
        }


def fit_reference(features: ArrayLike) -> FittedReference:
    """(N, D) reference samples, in float64; ProbeError below 2 samples or without any variance."""
    samples = _as_samples(features, "reference")
    if len(samples) <= NEIGHBOUR:
        raise ProbeError(
            f"expected more than {NEIGHBOUR} reference samples to fit to, got {len(samples)}; "
            "give more"
        )
    mean: Floats = samples.mean(axis=0)
    _, values, directions = np.linalg.svd(samples - mean, full_matrices=False)
    varies = values > max(samples.shape) * np.finfo(np.float64).eps * max(values[0], 1e-300)
    if not varies.any():
        raise ProbeError("expected reference samples that differ, got copies of one; give others")
    values, directions = values[varies], directions[varies]
    share = np.cumsum(np.square(values)) / np.square(values).sum()
    num_kept = int(np.searchsorted(share, VARIANCE_KEPT)) + 1
    deviations: Floats = (values / math.sqrt(len(samples) - 1)).astype(np.float64)
    return FittedReference(samples, mean, directions, deviations, num_kept)


def split_reference(
    num_samples: int, generator: np.random.Generator, *, share: float = HELD_OUT
) -> Calibration:
    """Which samples fit and which calibrate, drawn at random; at least one calibrates."""
    count = max(1, round(share * num_samples))
    chosen = generator.choice(num_samples, count, replace=False)
    held_out = np.sort(chosen).astype(np.int64)
    fitted = np.setdiff1d(np.arange(num_samples, dtype=np.int64), held_out)
    return Calibration(fitted, held_out)


def p_values(calibration: ArrayLike, scores: ArrayLike) -> Floats:
    """Share of usual samples that score at least as high: (M,), from 1/(1 + n) to 1.

    (1 + #{calibration ≥ s}) / (1 + n): for a sample like the reference at most u with a
    probability of at most u, whatever the score (Bates et al. 2023, "Testing for outliers with
    conformal p-values", eq. 2).
    """
    ordered = np.sort(np.asarray(calibration, dtype=np.float64))
    below = np.searchsorted(ordered, np.asarray(scores, dtype=np.float64), side="left")
    return np.asarray((1.0 + len(ordered) - below) / (1.0 + len(ordered)), dtype=np.float64)


def auroc(usual: ArrayLike, outliers: ArrayLike) -> Auroc:
    """Area under the ROC curve, with the interval of DeLong et al. 1988 on the logit scale.

    Where the two do not overlap DeLong's variance is 0. The interval then ends where as many
    disjoint pairs as there are would all be in order with a probability of 2.5 %.
    """
    first, second = (np.sort(np.asarray(side, dtype=np.float64)) for side in (usual, outliers))
    n, m = len(first), len(second)
    if min(n, m) < 2:
        raise ProbeError(f"expected at least 2 samples on each side, got {n} and {m}; give more")
    wins = _placements(first, second)  # of each outlier, among the usual
    losses = 1.0 - _placements(second, first)  # of each usual sample, among the outliers
    value = float(wins.mean())
    certain = 0.025 ** (1 / min(n, m))
    if value in (0.0, 1.0):
        return Auroc(value, certain if value else 0.0, 1.0 if value else 1.0 - certain)
    spread = math.sqrt(float(wins.var(ddof=1)) / m + float(losses.var(ddof=1)) / n)
    middle = math.log(value / (1 - value))
    reach = float(norm.ppf(0.975)) * spread / (value * (1 - value))
    return Auroc(value, _logistic(middle - reach), _logistic(middle + reach))


def reference_warnings(num_samples: int, dim: int) -> tuple[str, ...]:
    """What makes scores of so many reference samples doubtful."""
    warnings = []
    if num_samples < FEW:
        warnings.append(
            f"{num_samples} reference samples: below {FEW} neither mean nor neighbours are steady"
        )
    if num_samples <= dim:
        warnings.append(
            f"{num_samples} reference samples for {dim} dimensions: with fewer samples than "
            "dimensions most directions were never seen, and all scores are near chance for "
            "subtle shifts"
        )
    return tuple(warnings)


def calibrated(
    fitted: FittedReference, held_out: ArrayLike, features: ArrayLike
) -> Mapping[str, tuple[Floats, Floats]]:
    """Each score and its p-values of (M, D) samples, against (n, D) held-out reference samples."""
    usual, found = fitted.scores(held_out), fitted.scores(features)
    return {name: (found[name], p_values(usual[name], found[name])) for name in SCORES}


def _distance_to_neighbour(samples: Floats, reference: Floats) -> Floats:
    """(M,) distance of each sample to the `NEIGHBOUR`-th nearest of the reference."""
    squares = np.square(reference).sum(axis=1)
    distances = np.empty(len(samples))
    for start in range(0, len(samples), CHUNK):
        part = samples[start : start + CHUNK]
        near = squares - 2 * part @ reference.T
        index = np.argpartition(near, NEIGHBOUR - 1, axis=1)[:, NEIGHBOUR - 1]
        # again by differences: squares of near samples cancel
        distances[start : start + CHUNK] = np.linalg.norm(part - reference[index], axis=1)
    return distances


def _placements(ordered: Floats, values: Floats) -> Floats:
    """Share of `ordered` below each value, ties counted half."""
    below = np.searchsorted(ordered, values, side="left")
    upto = np.searchsorted(ordered, values, side="right")
    shares: Floats = (below + upto) / (2.0 * len(ordered))
    return shares


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _as_samples(features: ArrayLike, name: str) -> Floats:
    samples = np.asarray(features, dtype=np.float64)
    if samples.ndim != 2 or not samples.size:
        raise ProbeError(f"{name}: expected samples (N, D), got an array of {samples.shape}")
    if not np.isfinite(samples).all():
        raise ProbeError(f"{name}: expected finite numbers, got NaN or infinity; leave them out")
    return samples
