"""Means over images, pairs or seeds, with the interval that goes with them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.metrics.intervals import Interval, clustered_mean_interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Average(NamedTuple):
    """A mean and its interval; None of a single value, or where one is not finite."""

    mean: float
    interval: Interval | None


def average(values: ArrayLike, *, least: float = -np.inf) -> Average:
    """The mean of (N,) values, each a cluster of its own, and its 95 % interval.

    `least` is the smallest value that there can be; the interval ends there.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        return Average(float(numbers.mean()), None)
    around = clustered_mean_interval(numbers, np.arange(len(numbers)))
    return Average(float(numbers.mean()), replace(around, low=max(around.low, least)))


def spoken(average: Average, form: str) -> str:
    """`0.12 (0.10 to 0.14)`."""
    if average.interval is None:
        return f"{average.mean:{form}}"
    low, high = average.interval.low, average.interval.high
    return f"{average.mean:{form}} ({low:{form}} to {high:{form}})"
