"""Precision, recall, density and coverage from k-nearest-neighbour balls.

Kynkäänniemi et al. 2019, eq. 1-2 (precision, recall); Naeem et al. 2020, eq. 5-6 (density,
coverage). A ball reaches from a point to its k-th nearest other point of its own set.

Comparisons are decided by the direct formula: see `evaluator.metrics.distances`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_feature_sets
from evaluator.metrics.distances import MANY, Booleans, Distances, Points, pieces, points_of
from evaluator.metrics.intervals import Floats, Integers
from evaluator.metrics.nearest import Nearest, nearest, nearest_others
from evaluator.metrics.options import flag, whole_number


class NeighbourScores(NamedTuple):
    """The four numbers; precision, recall and coverage from 0 to 1, density 0 or more."""

    precision: float
    """Share of fakes inside some real ball: are they realistic?"""
    recall: float
    """Share of reals inside some fake ball: is everything there?"""
    density: float
    """Mean number of real balls around a fake, over k: precision that outliers do not inflate."""
    coverage: float
    """Share of real balls with a fake inside: recall that fake outliers do not inflate."""


def precision_recall_density_coverage(
    real: ArrayLike, fake: ArrayLike, *, k: int = 5, inclusive: bool = False
) -> NeighbourScores:
    """The four numbers of (N, D) real and (M, D) fake features, N and M above k.

    A point on the rim of a ball is outside (Naeem et al. 2020; the package prdc, whose k = 5 is
    the default here), or inside when `inclusive` (Kynkäänniemi et al. 2019; torch-fidelity; both
    with k = 3: ask for `k=3, inclusive=True` to compare with them). With more than k copies of a
    point its ball has radius 0, and only `inclusive` then finds the copies. Memory beyond the
    inputs is bounded by blocks, and float32 inputs are not copied to float64.
    """
    first, second = as_feature_sets(real=real, fake=fake)
    groups = np.zeros(len(second), dtype=np.int64)
    return scores_without_groups(first, second, groups, 0, k=k, inclusive=inclusive)[0]


def scores_without_groups(
    real: Tensor, fake: Tensor, groups: Integers, num_groups: int, *, k: int, inclusive: bool
) -> list[NeighbourScores]:
    """The scores of all fakes, then those without each of the `groups` (M,) of fakes, if any."""
    whole_number("k", k, at_least=1)
    flag("inclusive", inclusive)
    for name, values in (("real", real), ("fake", fake)):
        if len(values) <= k:
            raise MetricError(
                f"{name}: expected more than k={k} samples, got {len(values)}; "
                "lower k or add samples"
            )
    sides = points_of(real, fake)
    if not num_groups:
        groups = np.zeros(len(fake), dtype=np.int64)
    own = nearest_others(sides[0], k).keys[:, -1], fake_radii(sides[1], groups, num_groups, k)
    tally = _Tally(Distances(*sides), *own, groups, inclusive)
    tally.count()
    return tally.scores(k)


def fake_radii(points: Points, groups: Integers, num_groups: int, k: int) -> Floats:
    """(1 + G, M) squared distance to the k-th nearest other point, then without each group.

    The radius of a point in the group that is left out means nothing.
    """
    n = len(points.norms)
    if not num_groups:
        return nearest_others(points, k).keys[None, :, -1]
    found = nearest_others(points, min(2 * k, n - 1))
    radii = np.empty((1 + num_groups, n))
    radii[0] = found.keys[:, k - 1]
    for group in range(num_groups):
        kept = (groups[found.indices] != group).cumsum(axis=1)
        radii[1 + group] = found.keys[np.arange(n), (kept >= k).argmax(axis=1)]
        # too many of the neighbours are in the group: look further for these
        short = np.flatnonzero((kept[:, -1] < k) & (groups != group))
        if len(short):
            radii[1 + group, short] = _beyond(points, short, groups != group, k).keys[:, -1]
    return radii


def _beyond(points: Points, short: Integers, allowed: Booleans, k: int) -> Nearest:
    """The k nearest `allowed` other points of a few points, which are allowed too."""
    own = allowed.cumsum()[short] - 1
    screen = Distances(points.take(short), points.take(np.flatnonzero(allowed)))
    return nearest(screen, k, own=own)


class _Tally:
    """What the scores are counted from, one block of reals and fakes at a time."""

    def __init__(
        self,
        screen: Distances,
        real_radii: Floats,
        fake_radii: Floats,
        groups: Integers,
        inclusive: bool,
    ) -> None:
        """Squared radii: (N,), and (1 + G, M) with those without each group of fakes."""
        self.screen, self.groups, self.inclusive = screen, groups, inclusive
        self.real_radii, self.fake_radii = real_radii, fake_radii
        num_real, num_fake = screen.shape
        num_groups = len(fake_radii) - 1
        self.balls_around = np.zeros(num_fake, dtype=np.int64)
        """(M,) real balls around each fake."""
        self.recalled = np.zeros((1 + num_groups, num_real), dtype=bool)
        """(1 + G, N) reals inside a fake ball, then without each group."""
        self.fakes_inside = np.zeros((num_real, max(num_groups, 1)), dtype=np.int64)
        """(N, max(G, 1)) fakes inside each real ball, by group."""

    def count(self) -> None:
        """Go through all pairs."""
        for rows in pieces(self.screen.shape[0]):
            for columns in pieces(self.screen.shape[1]):
                self._block(rows, columns)

    def _block(self, rows: slice, columns: slice) -> None:
        real_reach = torch.from_numpy(self.real_radii[rows])[:, None]
        fake_reach = torch.from_numpy(self.fake_radii[:, columns].max(axis=0))[None, :]
        for dtype in self.screen.precisions:
            squared, doubt = self.screen.approximate(rows, columns, dtype)
            least = squared - doubt
            in_real, in_fake = (least <= reach.to(squared) for reach in (real_reach, fake_reach))
            by_real = _Pairs.of(in_real, squared, doubt, self.real_radii[None, rows], of_rows=True)
            by_fake = _Pairs.of(in_fake, squared, doubt, self.fake_radii[:, columns], of_rows=False)
            if by_real.doubtful.sum() + by_fake.doubtful.sum() <= MANY * squared.numel():
                break
        self._add_real_balls(*by_real.settled(self.screen, rows, columns))
        self._add_fake_balls(*by_fake.settled(self.screen, rows, columns))

    def _add_real_balls(self, i: Integers, j: Integers, distance: Floats) -> None:
        """Fakes inside the balls of reals."""
        inside = self._within(distance, self.real_radii[i])
        self.balls_around += np.bincount(j[inside], minlength=len(self.balls_around))
        np.add.at(self.fakes_inside, (i[inside], self.groups[j[inside]]), 1)

    def _add_fake_balls(self, i: Integers, j: Integers, distance: Floats) -> None:
        """Reals inside the balls of fakes, which grow without a group."""
        for case, radii in enumerate(self.fake_radii):
            inside = self._within(distance, radii[j])
            if case:
                inside &= self.groups[j] != case - 1
            self.recalled[case, i[inside]] = True

    def _within(self, distance: Floats, radii: Floats) -> Booleans:
        return distance <= radii if self.inclusive else distance < radii

    def scores(self, k: int) -> list[NeighbourScores]:
        """All fakes, then without each group."""
        cases = []
        everything = self.fakes_inside.sum(axis=1)
        for case, recalled in enumerate(self.recalled):
            around = self.balls_around[self.groups != case - 1] if case else self.balls_around
            gone = self.fakes_inside[:, case - 1] if case else 0
            cases.append(
                NeighbourScores(
                    precision=float((around > 0).mean()),
                    recall=float(recalled.mean()),
                    density=float(around.mean()) / k,
                    coverage=float((everything - gone > 0).mean()),
                )
            )
        return cases


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Pairs of a block that may lie inside a ball."""

    i: Integers
    j: Integers
    distance: Floats
    doubtful: Booleans
    """Which of the distances may be on the wrong side of a limit."""

    @classmethod
    def of(
        cls, chosen: Tensor, squared: Tensor, doubt: Tensor, limits: Floats, *, of_rows: bool
    ) -> _Pairs:
        """The chosen pairs of a block; `limits` (cases, rows) or (cases, columns)."""
        row, column = torch.nonzero(chosen, as_tuple=True)
        found = row, column, squared[row, column].double(), doubt[row, column].double()
        i, j, distance, error = (values.cpu().numpy() for values in found)
        doubtful = np.zeros(len(i), dtype=bool)
        for limit in limits:
            doubtful |= np.abs(distance - limit[i if of_rows else j]) <= error
        return cls(i, j, distance, doubtful)

    def settled(
        self, screen: Distances, rows: slice, columns: slice
    ) -> tuple[Integers, Integers, Floats]:
        """The pairs by their numbers in the sets, the doubtful ones by their exact distance."""
        i, j = self.i + rows.start, self.j + columns.start
        self.distance[self.doubtful] = screen.exact(i[self.doubtful], j[self.doubtful])
        return i, j, self.distance
