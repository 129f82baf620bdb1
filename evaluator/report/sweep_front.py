"""Which points of a sweep no other point beats in everything: the Pareto front, and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(values: ArrayLike, higher_is_better: Sequence[bool]) -> NDArray[np.bool_]:
    """(N,) which of N points are on the Pareto front of `values` (N, M), one column a metric.

    A point is on it unless another one is at least as good in every metric and better in one.
    Points with the same values are on it together. A point that lacks a value (NaN) is not, and
    beats none. `higher_is_better` (M,) gives the direction of each metric.
    """
    gains = _gains(values, higher_is_better)
    whole = ~np.isnan(gains).any(axis=1)
    # (N, N): does the row's point dominate the column's? Comparisons with NaN are false.
    as_good = (gains[:, None, :] >= gains[None, :, :]).all(axis=2)
    better = (gains[:, None, :] > gains[None, :, :]).any(axis=2)
    return np.asarray(whole & ~(as_good & better).any(axis=0), np.bool_)


def beaten_beyond_noise(
    low: ArrayLike, high: ArrayLike, higher_is_better: Sequence[bool]
) -> NDArray[np.bool_]:
    """(N,) which points another one beats in every metric with intervals that do not meet.

    `low` and `high` (N, M) are the ends of the intervals. Errs on the side of saying nothing:
    differences of paired points are known better than their intervals show. NaN decides nothing.
    """
    up = np.asarray(higher_is_better, np.bool_)
    bottom, top = np.asarray(low, np.float64), np.asarray(high, np.float64)
    worst = np.where(up, bottom, -top)
    best = np.where(up, top, -bottom)
    beaten = (worst[:, None, :] > best[None, :, :]).all(axis=2).any(axis=0)
    return np.asarray(beaten, np.bool_)


def told_apart(low: ArrayLike, high: ArrayLike) -> int:
    """How many pairs of (N,) points have intervals that do not meet."""
    bottom, top = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return int((bottom[:, None] > top[None, :]).sum())


def _gains(values: ArrayLike, higher_is_better: Sequence[bool]) -> NDArray[np.float64]:
    """`values` (N, M) turned so that more is better in every column."""
    numbers = np.asarray(values, np.float64)
    return numbers * np.where(np.asarray(higher_is_better, np.bool_), 1.0, -1.0)
