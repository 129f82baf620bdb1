"""What a metric says: a number with its sample count, direction, interval and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluator.metrics.intervals import Interval, Replicates


@dataclass(slots=True)
class Result:
    """One number of one metric, and all that a reader needs to trust or doubt it.

    Not frozen, nor is its interval: torchmetrics copies what `compute()` returns field by field.
    """

    name: str
    """Name of the number: `fid`, `precision_dinov2`."""
    value: float | None
    """The number, float64; None where it cannot be computed, and then `warnings` says why."""
    n: int
    """How many generated samples the number was computed from."""
    higher_is_better: bool | None
    """Direction; None where neither is better."""
    interval: Interval | None = None
    """Confidence interval; None where there are too few prompts for one."""
    warnings: tuple[str, ...] = ()
    """Sentences for the reader, to be shown next to the number."""
    details: Mapping[str, float] = field(default_factory=dict)
    """Further numbers behind this one: reference count, standard deviation over subsets."""
    replicates: Replicates | None = None
    """The jackknife of a number whose interval is another one, or none."""

    @property
    def jackknife(self) -> Replicates | None:
        """What two runs on the same samples are compared by; None where there is no such thing."""
        return self.replicates or (self.interval.replicates if self.interval else None)


class MeanOf(NamedTuple):
    """How a number comes from a column of single samples: `offset + factor` times its mean.

    Rows whose score is NaN or infinite are no part of the mean.
    """

    column: str
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class SampleRows:
    """What a metric says about each generated sample, to be written next to the sample."""

    positions: NDArray[np.int64]
    """(N,) places of the generated samples in the plan, ascending."""
    columns: Mapping[str, NDArray[Any]]
    """Column name → (N,) float64 or bool."""
    nearest: NDArray[np.int64] | None = None
    """(N,) position of the reference sample nearest to each; None where there is none."""
    means: Mapping[str, MeanOf] = field(default_factory=dict)
    """Name of a number → the column whose mean it is; those that are no mean are not in it."""
