"""Strengths of models from comparisons of two at a time (Bradley and Terry 1952).

The probability that i is preferred to j is 1 / (1 + exp(strength_j - strength_i)). A tie counts as
half a win of each: the fit is then the quasi-likelihood of Papke and Wooldridge 1996, consistent
for the expected score, and its interval does not suppose that answers are wins or losses.
(Davidson 1970 models ties by a further parameter; that is not done here.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluator.errors import MetricError
from evaluator.metrics.intervals import Interval, t_quantile
from evaluator.statistics.clustering import ClusteredSum

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ELO_CENTRE = 1000.0
"""The average model of a tier on the Elo-like scale."""

ELO_SCALE = 400.0 / float(np.log(10.0))
"""Points of a natural log-odds: 400 points are odds of ten to one, as in chess."""

COVERS = "the log-odds against the average of its tier, over prompts and answers drawn like these"

MAX_STEPS = 100
"""Newton steps; the log-likelihood is concave, and some ten are enough."""


@dataclass(frozen=True, slots=True)
class Strength:
    """One model's strength."""

    tier: int
    """Models of one tier can be placed against each other; 0 is the first."""
    value: float | None
    """Natural log-odds against the average of its tier; None where it stands alone there."""
    error: float | None
    """Standard error of `value`."""
    interval: Interval | None
    """An interval of `value`."""

    @property
    def elo(self) -> float | None:
        """The value on the Elo-like scale: 1000 for the average, 400 points for odds of 10 to 1."""
        return None if self.value is None else elo(self.value)


@dataclass(frozen=True, slots=True)
class BradleyTerry:
    """Strengths of K models, and which of them can be placed against which."""

    strengths: tuple[Strength, ...]
    tiers: tuple[tuple[int, ...], ...]
    """Models between which the likelihood has a finite maximum, stronger tiers first within an
    island. More than one tier of an island: the upper one never lost (not even half) to the lower,
    and the difference between them would be infinite."""
    islands: tuple[tuple[int, ...], ...]
    """Models that are linked by comparisons; nothing is known between two islands."""

    @property
    def separated(self) -> bool:
        """Whether some strengths would be infinite, or are not comparable at all."""
        return len(self.tiers) > 1


def elo(strength: float) -> float:
    """A log-odds on the Elo-like scale."""
    return ELO_CENTRE + ELO_SCALE * strength


def fit_bradley_terry(
    first: ArrayLike,
    second: ArrayLike,
    score: ArrayLike,
    *,
    num_models: int,
    clusterings: Sequence[ArrayLike] = (),
    level: float = 0.95,
) -> BradleyTerry:
    """Strengths by maximum likelihood (Newton), centred on 0 within each tier.

    `first`, `second` (N,) are models from 0 to K - 1, `score` (N,) in [0, 1] is how much of the
    comparison the first one won. Intervals: sandwich, clustered by one or two arrays (N,) of
    `clusterings` (prompts; prompts and raters), with Student's t for the fewest clusters minus 1;
    the inverse of the observed information without clusterings, or where clusters do not vary.
    The maximum exists exactly where wins connect the models strongly (Ford 1957): elsewhere
    the parts that are connected so, the tiers, are fitted each on its own comparisons, which is
    the limit of the likelihood.
    """
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    y = np.asarray(score, dtype=np.float64)
    _require_comparisons(a, b, y, num_models)
    won = np.zeros((num_models, num_models))
    np.add.at(won, (a, b), y)
    np.add.at(won, (b, a), 1.0 - y)
    tiers, islands = connected(won)
    strengths: dict[int, Strength] = {}
    for tier, members in enumerate(tiers):
        inside = np.isin(a, members) & np.isin(b, members)
        place = np.full(num_models, -1)
        place[list(members)] = np.arange(len(members))
        labels = [np.asarray(c)[inside] for c in clusterings]
        found = _fit_tier(
            place[a[inside]], place[b[inside]], y[inside], len(members), labels, tier, level
        )
        strengths.update(zip(members, found, strict=True))
    return BradleyTerry(tuple(strengths[k] for k in range(num_models)), tiers, islands)


def _require_comparisons(a: Integers, b: Integers, y: Floats, num_models: int) -> None:
    if not (a.shape == b.shape == y.shape) or a.ndim != 1:
        raise MetricError(
            f"comparisons: expected three arrays of one length, got {a.shape}, {b.shape}, "
            f"{y.shape}; give one first, second and score for each comparison"
        )
    models = np.concatenate([a, b])
    if a.size and (models.min() < 0 or models.max() >= num_models or np.any(a == b)):
        raise MetricError(
            f"comparisons: expected two different models from 0 to {num_models - 1} each, got "
            "others; leave out comparisons of a model with itself"
        )
    if not np.all((y >= 0.0) & (y <= 1.0)):
        raise MetricError("comparisons: expected scores from 0 to 1, got others; a tie is 0.5")


def connected(
    won: Floats,
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Tiers and islands of a matrix (K, K) of wins: strongly and weakly connected components.

    Islands come by their first model, tiers by island and then stronger before weaker.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    beats = won > 0.0
    graph = csr_array(beats.astype(np.int8))
    _, tier = connected_components(graph, connection="strong")
    _, island = connected_components(graph, connection="weak")
    reach = beats | np.eye(len(won), dtype=bool)
    for _ in range(max(1, len(won).bit_length())):
        reach = (reach.astype(np.float64) @ reach.astype(np.float64)) > 0.0
    islands = sorted(_members(island))
    tiers = sorted(
        _members(tier), key=lambda m: (int(island[m[0]]), -int(reach[m[0]].sum()), m)
    )  # fmt: skip
    order = {int(island[m[0]]): place for place, m in enumerate(islands)}
    tiers.sort(key=lambda m: order[int(island[m[0]])])
    return tuple(tiers), tuple(islands)


def _members(labels: NDArray[np.int32]) -> list[tuple[int, ...]]:
    return [tuple(np.flatnonzero(labels == k).tolist()) for k in np.unique(labels)]


def _fit_tier(
    a: Integers,
    b: Integers,
    y: Floats,
    num: int,
    clusterings: Sequence[NDArray[np.generic]],
    tier: int,
    level: float,
) -> list[Strength]:
    """The strengths of strongly connected models, numbered from 0 to `num` - 1."""
    if num == 1:
        return [Strength(tier, None, None, None)]
    theta = _maximum(a, b, y, num)
    p = _expected(theta, a, b)
    bread = np.linalg.pinv(_information(p, a, b, num), hermitian=True)
    found = []
    spread = _spread(a, b, y - p, num, clusterings)
    for k in range(num):
        variance = 0.0 if spread is None else spread.variance(bread[k])
        if spread is not None and variance > 0.0:
            reach, method = t_quantile(level, spread.degrees_of_freedom), "sandwich, clustered"
        else:
            variance, method = float(bread[k, k]), "observed information"
            reach = t_quantile(level, 1e9)
        error, value = float(np.sqrt(variance)), float(theta[k])
        low, high = value - reach * error, value + reach * error
        found.append(Strength(tier, value, error, Interval(low, high, level, method, COVERS)))
    return found


def _spread(
    a: Integers,
    b: Integers,
    residuals: Floats,
    num: int,
    clusterings: Sequence[NDArray[np.generic]],
) -> ClusteredSum | None:
    """The sum of scores, clustered; None where there are fewer than two clusters."""
    if not clusterings or any(len(np.unique(c)) < 2 for c in clusterings):
        return None
    scores = np.zeros((a.size, num))
    rows = np.arange(a.size)
    scores[rows, a] += residuals
    scores[rows, b] -= residuals
    return ClusteredSum(scores, clusterings)


def _maximum(a: Integers, b: Integers, y: Floats, num: int) -> Floats:
    """Newton's method on the concave log-likelihood, each step halved until it climbs."""
    theta = np.zeros(num)
    height = log_likelihood(theta, a, b, y)
    for _ in range(MAX_STEPS):
        p = _expected(theta, a, b)
        slope = np.bincount(a, y - p, num) - np.bincount(b, y - p, num)
        step = np.linalg.pinv(_information(p, a, b, num), hermitian=True) @ slope
        for _ in range(60):
            higher = log_likelihood(theta + step, a, b, y)
            if higher >= height:
                break
            step = step / 2.0
        theta, height = theta + step, higher
        if float(np.abs(step).max()) < 1e-10:
            break
    return np.asarray(theta - theta.mean(), dtype=np.float64)


def log_likelihood(theta: Floats, a: Integers, b: Integers, y: Floats) -> float:
    """Sum of y log p + (1 - y) log(1 - p), with p the probability that the first is preferred."""
    gap = theta[a] - theta[b]
    return float((y * gap - np.logaddexp(0.0, gap)).sum())


def _expected(theta: Floats, a: Integers, b: Integers) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(theta[a] - theta[b]), dtype=np.float64)


def _information(p: Floats, a: Integers, b: Integers, num: int) -> Floats:
    """The negative Hessian (K, K): the Laplacian of the comparisons, weighted by p(1-p)."""
    found = np.zeros((num, num))
    np.add.at(found, (a, b), -p * (1.0 - p))
    found = found + found.T
    found[np.arange(num), np.arange(num)] = -found.sum(axis=1)
    return found
