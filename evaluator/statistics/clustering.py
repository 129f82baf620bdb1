"""Variances of answers that are alike within a prompt and within a rater.

One clustering is Miller 2024, as in `evaluator.metrics.intervals`; two that cross each other
(every rater sees every prompt) are Cameron, Gelbach and Miller 2011, eq. 2.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluator.errors import MetricError
from evaluator.metrics.intervals import Interval, t_quantile

Floats = NDArray[np.float64]

LEAST_LEVEL = 1e-6
"""Confidence below which Student's quantiles lose their digits."""


class ClusteredSum:
    """The covariance of a sum of contributions (N, K), N answers to K estimates.

    `clusterings` holds one or two arrays (N,) of labels: prompts, or prompts and raters.
    """

    def __init__(self, contributions: ArrayLike, clusterings: Sequence[ArrayLike]) -> None:
        values = np.asarray(contributions, dtype=np.float64)
        codes = [np.unique(np.asarray(c), return_inverse=True)[1] for c in clusterings]
        counts = [int(c.max()) + 1 if c.size else 0 for c in codes]
        if not 1 <= len(codes) <= 2 or min(counts) < 2:
            raise MetricError(
                "interval: expected one or two clusterings of at least 2 clusters each, got "
                f"{counts}; ask more prompts or more raters"
            )
        self.degrees_of_freedom = min(counts) - 1
        self._ways = [_meat(values, code, count) for code, count in zip(codes, counts, strict=True)]
        if len(codes) == 2:
            _, crossed = np.unique(codes[0] * counts[1] + codes[1], return_inverse=True)
            both = _meat(values, crossed, int(crossed.max()) + 1)
            self._ways.insert(0, self._ways[0] + self._ways[1] - both)

    def variance(self, contrast: ArrayLike) -> float:
        """The variance of `contrast` (K,) times the sum.

        Of two clusterings, the difference of matrices may be too small, even negative: then each
        clustering alone is the floor (a deviation from the source, towards wider intervals).
        """
        c = np.asarray(contrast, dtype=np.float64)
        return max(float(c @ way @ c) for way in self._ways)


def _meat(values: Floats, codes: NDArray[np.intp], count: int) -> Floats:
    """C/(C-1) times the sum over clusters of the outer product of their sums."""
    if count < 2:
        return np.zeros((values.shape[1], values.shape[1]))
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, codes, values)
    return np.asarray(count / (count - 1) * (sums.T @ sums), dtype=np.float64)


def share_interval(
    values: ArrayLike,
    clusterings: Sequence[ArrayLike],
    *,
    covers: str,
    level: float = 0.95,
) -> Interval:
    """An interval of the mean of `values` (N,) in [0, 1]: wins 1, losses 0, ties a half.

    Korn and Graubard 1998, as `metrics.intervals.clustered_share_interval`, for one clustering or
    two: the exact interval of Clopper and Pearson for the effective number of answers,
    p(1-p)/variance, at most N, corrected for degrees of freedom. Where all answers are the same,
    each cluster of the first clustering (each prompt) counts as one answer.
    """
    from scipy.special import betaincinv

    scores = np.asarray(values, dtype=np.float64)
    n = scores.size
    share = float(scores.mean()) if n else 0.0
    spread = ClusteredSum((scores - share)[:, None], clusterings)
    effective = float(len(np.unique(np.asarray(clusterings[0]))))
    if 0.0 < share < 1.0:
        ratio = t_quantile(level, n - 1) / t_quantile(level, spread.degrees_of_freedom)
        variance = spread.variance([1.0 / n])
        effective = ratio**2 * share * (1.0 - share) / variance if variance > 0.0 else float(n)
    effective = min(effective, float(n))
    found, tail = share * effective, (1.0 - level) / 2.0
    low = float(betaincinv(found, effective - found + 1.0, tail)) if share > 0.0 else 0.0
    high = float(betaincinv(found + 1.0, effective - found, 1.0 - tail)) if share < 1.0 else 1.0
    method = "Clopper-Pearson, effective number of answers"
    return Interval(low, high, level, method, covers)


def share_p_value(
    values: ArrayLike, clusterings: Sequence[ArrayLike], *, chance: float = 0.5
) -> float:
    """Two-sided p of the mean of `values` being `chance`: where `share_interval` just reaches it.

    One minus the greatest confidence whose interval leaves `chance` out, by bisection to 1e-9; so
    the test and the interval never disagree.
    """
    scores = np.asarray(values, dtype=np.float64)
    if float(scores.mean()) == chance:
        return 1.0
    low, high = LEAST_LEVEL, 1.0
    for _ in range(30):
        level = (low + high) / 2.0
        found = share_interval(scores, clusterings, covers="", level=level)
        if found.low <= chance <= found.high:
            high = level
        else:
            low = level
    return 1.0 if low == LEAST_LEVEL else 1.0 - high
