"""Many tests at once: how small a p must be when some would be small by chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluator.errors import MetricError


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """(M,) p adjusted so that rejecting those ≤ α errs at all in at most α of such families.

    Holm 1979: the k-th smallest is multiplied by M - k + 1, made monotone, and cut at 1. It asks
    nothing about how the tests depend on each other.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0.0) & (values <= 1.0)).all():
        raise MetricError(
            f"p values: expected shape (tests,) and numbers from 0 to 1, got {values}; leave out "
            "numbers without a test"
        )
    order = np.argsort(values, kind="stable")
    factors = np.arange(values.size, 0, -1)
    adjusted = np.empty(values.size)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return adjusted
