"""Pass or fail in both of two runs: McNemar's test of the pairs that disagree."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from evaluator.errors import MetricError


class McNemar(NamedTuple):
    """Four counts of pairs, and the two-sided p that both runs pass equally often."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    """Exact: never too small, and often too large."""
    mid_p: float
    """With half the probability of what was seen (Fagerland, Lydersen and Laake 2013)."""


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """The test of paired marks (N,) and (N,), true where a sample passes.

    Given how many pairs disagree, either way is as likely (binomial, 1/2). Pairs are taken as
    independent of each other: images of one prompt are not.
    """
    a, b = (np.asarray(marks) for marks in (first, second))
    if a.shape != b.shape or a.ndim != 1 or a.dtype != np.bool_ or b.dtype != np.bool_:
        raise MetricError(
            f"marks: expected two boolean arrays of one shape (pairs,), got {a.dtype} {a.shape} "
            f"and {b.dtype} {b.shape}; pair the samples first"
        )
    both, first_only, second_only, neither = (
        int(marks.sum()) for marks in (a & b, a & ~b, ~a & b, ~a & ~b)
    )
    p, mid_p = mcnemar_p(first_only, second_only)
    return McNemar(both, first_only, second_only, neither, p, mid_p)


def mcnemar_p(only_first: int, only_second: int) -> tuple[float, float]:
    """The exact and the mid-p of two counts of pairs that disagree; 1 where none does."""
    from scipy.special import bdtr, gammaln

    n, least = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0, 1.0
    logarithm = gammaln(n + 1) - gammaln(least + 1) - gammaln(n - least + 1) - n * np.log(2.0)
    point = float(np.exp(logarithm))
    if only_first == only_second:
        return 1.0, 1.0 - 0.5 * point
    exact = min(1.0, 2.0 * float(bdtr(least, n, 0.5)))
    return exact, max(exact - point, 0.0)
