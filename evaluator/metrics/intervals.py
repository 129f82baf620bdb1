"""Confidence intervals that say what they are intervals of.

Samples of one prompt are alike, so prompts, not samples, are what is drawn: means get a
cluster-robust t-interval, and numbers of a whole set get a delete-a-group jackknife over groups
of whole prompts. Resampling with replacement is not offered: a repeated sample is its own nearest
neighbour and sits on the kernel's diagonal, which shifts exactly the numbers of interest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluator.errors import MetricError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NUM_GROUPS = 20
"""Groups of a jackknife: 19 degrees of freedom cost 7 % of width against infinitely many."""

COVERS_MEAN = "the mean over prompts drawn like these"
COVERS_MEAN_GIVEN = "the mean over prompts drawn like these, with the reference held fixed"
COVERS_SET = (
    "the value expected at this number of generated samples, over prompts and noise drawn like "
    "these, with the reference held fixed"
)
COVERS_ONE_SET = (
    "the value expected at this number of generated samples, over prompts and noise drawn like "
    "these"
)


class Replicates(NamedTuple):
    """What a jackknife saw: two runs that left out the same prompts are compared by it."""

    value: float
    """The number that the replicates are of, from all samples."""
    left_out: tuple[float, ...]
    """The number without each group of prompts."""
    sizes: tuple[int, ...]
    """Samples in each group."""
    extra_variance: float = 0.0
    """Variance that is not the samples' (random subsets)."""


@dataclass(slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float
    level: float
    """Confidence, such as 0.95."""
    method: str
    """How it was computed."""
    covers: str
    """What lies inside with that confidence, in words."""
    replicates: Replicates | None = None
    """The jackknife behind it; None of other intervals. No part of metrics.json."""

    def record(self) -> dict[str, Any]:
        """What metrics.json holds."""
        return {
            "low": self.low,
            "high": self.high,
            "level": self.level,
            "method": self.method,
            "covers": self.covers,
        }


def t_quantile(level: float, degrees_of_freedom: float) -> float:
    """The two-sided Student quantile: 2.09 at level 0.95 with 19 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, 0.5 + level / 2.0))


def clustered_mean_interval(
    values: ArrayLike, clusters: ArrayLike, *, level: float = 0.95
) -> Interval:
    """A cluster-robust t-interval of the mean of `values` (N,), with `clusters` (N,) prompts.

    Standard error: sqrt(C/(C-1) * sum over clusters of (sum of residuals)^2) / N, with C - 1
    degrees of freedom (Miller 2024, "Adding error bars to evals", section 2.2; the factor
    C/(C-1) is added here, so that one sample a cluster gives the textbook t-interval).
    """
    scores = np.asarray(values, dtype=np.float64)
    _, members = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(members.max()) + 1 if scores.size else 0
    if count < 2:
        raise MetricError(
            f"interval of a mean: expected at least 2 prompts, got {count}; evaluate more prompts"
        )
    mean = float(scores.mean())
    residuals = np.bincount(members, weights=scores - mean, minlength=count)
    error = float(np.sqrt(count / (count - 1) * np.square(residuals).sum())) / scores.size
    reach = t_quantile(level, count - 1) * error
    return Interval(mean - reach, mean + reach, level, "cluster-robust t", COVERS_MEAN)


def clustered_share_interval(
    marks: ArrayLike, clusters: ArrayLike, *, level: float = 0.95
) -> Interval:
    """An interval of the share of true `marks` (N,), with `clusters` (N,) prompts.

    Korn and Graubard 1998: the exact interval of Clopper and Pearson for as many independent
    samples as would give the cluster-robust variance, p(1-p)/variance, at most N, corrected for
    its C - 1 degrees of freedom. It has width where no sample or every sample is marked: each of
    the C prompts then counts as one sample, and the far end is about 3.7/C (level 0.95).
    """
    from scipy.special import betaincinv

    values = np.asarray(marks, dtype=np.float64)
    share, n = float(values.mean()) if values.size else 0.0, values.size
    around = clustered_mean_interval(values, clusters, level=level)
    effective = float(len(np.unique(np.asarray(clusters))))
    if 0.0 < share < 1.0:
        reach = (around.high - around.low) / 2.0
        wanted = t_quantile(level, max(n - 1, 1)) ** 2 * share * (1.0 - share)
        effective = wanted / reach**2 if reach > 0.0 else float(n)
    effective = min(effective, float(n))
    found, tail = share * effective, (1.0 - level) / 2.0
    low = float(betaincinv(found, effective - found + 1.0, tail)) if share > 0.0 else 0.0
    high = float(betaincinv(found + 1.0, effective - found, 1.0 - tail)) if share < 1.0 else 1.0
    return Interval(low, high, level, "Clopper-Pearson, effective number of samples", COVERS_MEAN)


def interval_over_prompts(
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    level: float,
    covers: str = COVERS_MEAN,
    share: bool = False,
) -> tuple[Interval | None, list[str]]:
    """The interval of a mean, or of a `share`, and of one prompt the reason why there is none."""
    if len(np.unique(np.asarray(clusters))) < 2:
        return None, ["no interval: expected at least 2 prompts, got 1; evaluate more prompts"]
    of = clustered_share_interval if share else clustered_mean_interval
    return replace(of(values, clusters, level=level), covers=covers), []


def jackknife_groups(clusters: ArrayLike, *, groups: int = NUM_GROUPS, seed: int = 0) -> Integers:
    """The group, 0 to `groups` - 1, of each sample, from its cluster number (N,) alone.

    Each block of `groups` consecutive cluster numbers is dealt out by its own seeded permutation.
    So a group needs no knowledge of the other samples (any number of processes agree), complete
    plans give groups of equal size, and no period in the order of the prompts lines up with them.
    """
    numbers = np.asarray(clusters, dtype=np.int64)
    if numbers.size and numbers.min() < 0:
        raise MetricError(
            f"clusters: expected prompt numbers from 0, got {numbers.min()}; count from 0"
        )
    blocks, where = np.unique(numbers // groups, return_inverse=True)
    slots = (blocks[:, None] * groups + np.arange(groups)).astype(np.uint64)
    dealt = np.argsort(np.argsort(_scramble(slots, seed), axis=1), axis=1)
    return dealt[where, numbers % groups].astype(np.int64)


def _scramble(numbers: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A 64-bit mixing of (number, seed): SplitMix64's finalizer (Steele et al. 2014)."""
    offset = np.uint64(((seed + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
    mixed = numbers * np.uint64(0xD1342543DE82EF95) + offset
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def jackknife_interval(
    value: float,
    replicates: ArrayLike,
    sizes: ArrayLike,
    *,
    covers: str,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
    extra_variance: float = 0.0,
) -> Interval:
    """A t-interval about `value` from leave-one-group-out `replicates` (G,).

    `sizes` (G,) are the samples in each group; groups may be unequal, and a bias proportional to
    1/n cancels (Busing et al. 1999, delete-m_j jackknife, eq. 9). G - 1 degrees of freedom.
    `extra_variance` is added for noise that is not the samples' (random subsets), and `bounds`
    are the metric's own.
    """
    left_out = np.asarray(replicates, dtype=np.float64)
    count = left_out.size
    if count < 2:
        raise MetricError(
            f"jackknife: expected at least 2 groups of prompts, got {count}; evaluate more prompts"
        )
    members = np.asarray(sizes, dtype=np.float64)
    ratio = members.sum() / members
    pseudo = ratio * value - (ratio - 1.0) * left_out
    centre = count * value - float(((1.0 - 1.0 / ratio) * left_out).sum())
    variance = float((np.square(pseudo - centre) / (ratio - 1.0)).mean()) + extra_variance
    reach = t_quantile(level, count - 1) * float(np.sqrt(variance))
    low, high = max(float(value) - reach, bounds[0]), min(float(value) + reach, bounds[1])
    seen = Replicates(
        float(value), tuple(left_out.tolist()), tuple(members.astype(int).tolist()), extra_variance
    )
    return Interval(low, high, level, f"delete-a-group jackknife ({count} groups)", covers, seen)


def grouped_jackknife(
    statistic: Callable[[Integers], float],
    clusters: ArrayLike,
    *,
    covers: str,
    groups: int = NUM_GROUPS,
    seed: int = 0,
    level: float = 0.95,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
    """The jackknife interval of `statistic(indices)`, for indices from 0 to N - 1.

    It is called once for all samples and once for each group left out; `clusters` (N,) are prompt
    numbers.
    """
    group = jackknife_groups(clusters, groups=groups, seed=seed)
    everyone = np.arange(group.size)
    present, sizes = np.unique(group, return_counts=True)
    if present.size < 2:
        raise MetricError(
            f"jackknife: expected at least 2 groups of prompts, got {present.size}; "
            "evaluate more prompts"
        )
    replicates = [statistic(everyone[group != left_out]) for left_out in present]
    limits: dict[str, Any] = {"level": level, "bounds": bounds}
    return jackknife_interval(statistic(everyone), replicates, sizes, covers=covers, **limits)
