"""Numbers of whole sets by the jackknives in metrics.json: what each group of prompts adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluator.aggregate.summary import MetricRecord, is_real
from evaluator.leaderboard.made_with import mapping

Floats = NDArray[np.float64]

STILL = 1e-12
"""Share of a number below which what its groups add is rounding alone."""
EXACT = 1e-6
"""Standard error of a number, as its share, that is always supposed: the same images, embedded on
two machines, give distances that differ by less."""


class Grouped(NamedTuple):
    """R numbers of whole sets, over the same G groups of prompts."""

    influence: Floats
    """(R, G) what each group adds to the error of a number; each row sums up to 0."""
    extra: Floats
    """(R,) variance that is not the groups'."""

    @property
    def still(self) -> NDArray[np.bool_]:
        """(R,) whether no group moves the number: its jackknife knows nothing of its error."""
        return np.asarray(~self.influence.any(axis=1), np.bool_)


def grouped(records: Sequence[MetricRecord]) -> Grouped | None:
    """The jackknives behind numbers over the same prompts; None where one has none, or others.

    G/(G - 1) times the sum of squares of a row is the variance of its delete-a-group jackknife
    where groups are of one size, and so it is for differences of two rows.
    """
    sizes = {_sizes(mapping(record.replicates)) for record in records}
    if len(sizes) != 1 or len(first := sizes.pop()) < 2:
        return None
    members = np.array(first, np.float64)
    shares = members / members.sum()
    influence, extra = [], []
    for record in records:
        seen = mapping(record.replicates)
        value, variance, left_out = (
            seen.get(name) for name in ("value", "extra_variance", "left_out")
        )
        if not is_real(value) or not is_real(variance) or not isinstance(left_out, list):
            return None
        if len(left_out) != len(first) or not all(map(is_real, left_out)):
            return None
        whole = float(value or 0.0)
        added = (1.0 - shares) * (whole - np.array(left_out, np.float64))
        added[np.abs(added) <= STILL * abs(whole)] = 0.0
        influence.append(added - shares * added.sum())
        extra.append(max(float(variance or 0.0), 0.0) + (EXACT * whole) ** 2)
    return Grouped(np.stack(influence), np.array(extra))


def _sizes(replicates: Mapping[str, object]) -> tuple[float, ...]:
    """Samples in each group; nothing where the file says no such thing."""
    sizes = replicates.get("sizes")
    if not isinstance(sizes, list) or not all(is_real(size) and size > 0 for size in sizes):
        return ()
    return tuple(float(size) for size in sizes)
