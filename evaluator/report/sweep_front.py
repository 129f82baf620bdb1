"""Which points of a sweep no other point beats in everything: the Pareto front, and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(
    values: ArrayLike, higher_is_better: Sequence[bool], kinds: ArrayLike | None = None
) -> NDArray[np.bool_]:
    """(N,) which of N points are on the Pareto front of `values` (N, M), one column a metric.

    A point is on it unless another one is at least as good in every metric and better in one.
    Points with the same values are on it together. A point that lacks a value (NaN) is not, and
    beats none. `higher_is_better` (M,) gives the direction of each metric. Of points of several
    `kinds` (N,) each kind has a front of its own.
    """
    gains = _gains(values, higher_is_better)
    whole = ~np.isnan(gains).any(axis=1)
    # (N, N): does the row's point dominate the column's? Comparisons with NaN are false.
    as_good = (gains[:, None, :] >= gains[None, :, :]).all(axis=2)
    better = (gains[:, None, :] > gains[None, :, :]).any(axis=2)
    dominates = as_good & better & _same(kinds, len(gains))
    return np.asarray(whole & ~dominates.any(axis=0), np.bool_)


def beaten_beyond_noise(
    low: ArrayLike,
    high: ArrayLike,
    higher_is_better: Sequence[bool],
    kinds: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    """(N,) which points another one of their kind beats in every metric, intervals apart.

    `low` and `high` (N, M) are the ends of the intervals. Errs on the side of saying nothing:
    differences of paired points are known better than their intervals show. NaN decides nothing.
    """
    up = np.asarray(higher_is_better, np.bool_)
    bottom, top = np.asarray(low, np.float64), np.asarray(high, np.float64)
    worst = np.where(up, bottom, -top)
    best = np.where(up, top, -bottom)
    beats = (worst[:, None, :] > best[None, :, :]).all(axis=2) & _same(kinds, len(worst))
    return np.asarray(beats.any(axis=0), np.bool_)


def told_apart(low: ArrayLike, high: ArrayLike) -> int:
    """How many pairs of (N,) points have intervals that do not meet."""
    bottom, top = np.asarray(low, np.float64), np.asarray(high, np.float64)
    return int((bottom[:, None] > top[None, :]).sum())


def alone(kinds: ArrayLike) -> NDArray[np.bool_]:
    """(N,) which points no other one is of the kind of; a single point is not alone."""
    each = np.asarray(kinds)
    return np.asarray((_same(each, len(each)).sum(axis=1) == 1) & (len(each) > 1), np.bool_)


def _same(kinds: ArrayLike | None, n: int) -> NDArray[np.bool_]:
    """(N, N) which points are of one kind; all where no kinds are told."""
    each = np.zeros(n) if kinds is None else np.asarray(kinds)
    return np.asarray(each[:, None] == each[None, :], np.bool_)


def _gains(values: ArrayLike, higher_is_better: Sequence[bool]) -> NDArray[np.float64]:
    """`values` (N, M) turned so that more is better in every column."""
    numbers = np.asarray(values, np.float64)
    return numbers * np.where(np.asarray(higher_is_better, np.bool_), 1.0, -1.0)
