"""Precision, recall, density and coverage from k-nearest-neighbour balls.

Kynkäänniemi et al. 2019, eq. 1-2 (precision, recall); Naeem et al. 2020, eq. 5-6 (density,
coverage). A ball reaches from a point to its k-th nearest other point of its own set.

Squared distances come from a chunked matrix product, which is fast and wrong in the last digits.
Where that could decide a comparison (duplicates, lattices, points on the rim of a ball), the pair
is computed again as Σ (x − y)², so every answer is that of the direct formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import EPSILON, ArrayLike, as_pair
from evaluator.metrics.intervals import Floats, Integers
from evaluator.metrics.options import flag, whole_number

CHUNK_ELEMENTS = 1 << 22
"""Distances held at one time: 32 MiB."""
EXTRA = 8
"""Neighbours beyond the k-th that are computed exactly, in case the product misordered them."""

Booleans = NDArray[np.bool_]


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

    A point on the rim of a ball is outside (Naeem et al. 2020), or inside when `inclusive`
    (Kynkäänniemi et al. 2019). With more than k copies of a point its ball has radius 0, and only
    `inclusive` then finds the copies. Memory beyond the inputs is bounded by chunking.
    """
    first, second = as_pair(real, fake, ("real", "fake"))
    groups = np.zeros(len(second), dtype=np.int64)
    return scores_without_groups(first, second, groups, 0, k=k, inclusive=inclusive)[0]


def scores_without_groups(
    real: Tensor, fake: Tensor, groups: Integers, num_groups: int, *, k: int, inclusive: bool
) -> list[NeighbourScores]:
    """The scores of all fakes, then those without each of the `groups` (M,) of fakes."""
    whole_number("k", k, at_least=1)
    flag("inclusive", inclusive)
    for name, values in (("real", real), ("fake", fake)):
        if len(values) <= k:
            raise MetricError(
                f"{name}: expected more than k={k} samples, got {len(values)}; "
                "lower k or add samples"
            )
    sides = Points.of(real, real.mean(dim=0)), Points.of(fake, real.mean(dim=0))
    alone = np.zeros(len(real), dtype=np.int64)
    radii = neighbour_radii(sides[0], alone, 0, k), neighbour_radii(sides[1], groups, num_groups, k)
    tally = _Tally.empty(len(real), len(fake), num_groups)
    for start, squared in chunks(*sides):
        tally.add_real_balls(start, squared, sides, radii[0][0], groups, inclusive)
        tally.add_fake_balls(start, squared, sides, radii[1], groups, inclusive)
    return tally.scores(groups, k)


@dataclass(frozen=True, slots=True)
class Points:
    """One set, as given and centred."""

    given: Floats
    centred: Tensor
    norms: Tensor
    """Squared norms of the centred points."""

    @classmethod
    def of(cls, values: Tensor, centre: Tensor) -> Points:
        """(N, D) values, centred on a (D,) point that both sets share."""
        centred = values - centre
        return cls(values.cpu().numpy(), centred, centred.square().sum(dim=1))

    @property
    def doubt(self) -> Tensor:
        """(N,) each point's share in the rounding error of a squared distance."""
        return self.norms * (4.0 * (self.centred.shape[1] + 8) * EPSILON)


def chunks(rows: Points, columns: Points) -> Iterator[tuple[int, Tensor]]:
    """(first row, (rows of the chunk, M) squared distances), approximate."""
    step = max(1, CHUNK_ELEMENTS // len(columns.norms))
    for start in range(0, len(rows.norms), step):
        piece = slice(start, start + step)
        squared = torch.addmm(
            columns.norms[None, :], rows.centred[piece], columns.centred.T, alpha=-2.0
        )
        yield start, squared.add_(rows.norms[piece, None])


def exact_distances(a: Floats, b: Floats, rows: Integers, columns: Integers) -> Floats:
    """(P,) squared distances of pairs by the direct formula: the same pair, the same bits."""
    squared = np.empty(len(rows))
    step = max(1, CHUNK_ELEMENTS // a.shape[1])
    for start in range(0, len(rows), step):
        pairs = slice(start, start + step)
        squared[pairs] = np.square(a[rows[pairs]] - b[columns[pairs]]).sum(axis=1)
    return squared


def neighbour_radii(points: Points, groups: Integers, num_groups: int, k: int) -> Floats:
    """(1 + G, N) squared distance to the k-th nearest other point, then without each group."""
    n = len(points.norms)
    radii = np.empty((1 + num_groups, n))
    wanted = min(n - 1, (2 * k if num_groups else k) + EXTRA)
    for start, squared in chunks(points, points):
        rows = np.arange(start, start + len(squared))
        squared[np.arange(len(rows)), rows] = torch.inf
        distances, others = _nearest(points, rows, squared, wanted)
        radii[0, rows] = distances[:, k - 1]
        for group in range(num_groups):
            kept = (groups[others] != group).cumsum(axis=1)
            radii[1 + group, rows] = distances[np.arange(len(rows)), (kept >= k).argmax(axis=1)]
            # too many of the neighbours are in the group: look further for these rows
            short = np.flatnonzero(kept[:, -1] < k)
            if len(short):
                far = squared[short]
                far[:, groups == group] = torch.inf
                beyond, _ = _nearest(points, rows[short], far, k)
                radii[1 + group, rows[short]] = beyond[:, k - 1]
    return radii


def _nearest(
    points: Points, rows: Integers, squared: Tensor, count: int
) -> tuple[Floats, Integers]:
    """The `count` nearest points of each row by exact distance, (R, count), and their indices."""
    others = squared.topk(count, dim=1, largest=False).indices.cpu().numpy()
    exact = exact_distances(points.given, points.given, rows.repeat(count), others.ravel())
    exact = exact.reshape(others.shape)
    order = np.argsort(exact, axis=1, kind="stable")
    return np.take_along_axis(exact, order, axis=1), np.take_along_axis(others, order, axis=1)


@dataclass(frozen=True, slots=True)
class _Tally:
    """What the scores are counted from, filled one chunk of reals at a time."""

    balls_around: Integers
    """(M,) real balls around each fake."""
    recalled: Booleans
    """(1 + G, N) reals inside a fake ball, then without each group."""
    fakes_inside: Integers
    """(N, max(G, 1)) fakes inside each real ball, by group."""

    @classmethod
    def empty(cls, num_real: int, num_fake: int, num_groups: int) -> _Tally:
        return cls(
            np.zeros(num_fake, dtype=np.int64),
            np.zeros((1 + num_groups, num_real), dtype=bool),
            np.zeros((num_real, max(num_groups, 1)), dtype=np.int64),
        )

    def add_real_balls(
        self,
        start: int,
        squared: Tensor,
        sides: tuple[Points, Points],
        radii: Floats,
        groups: Integers,
        inclusive: bool,
    ) -> None:
        """Fakes inside the balls of the reals of this chunk."""
        rows = slice(start, start + len(squared))
        reach = torch.from_numpy(radii[rows]).to(squared.device)
        reach = reach + sides[0].doubt[rows] + sides[1].doubt.max()
        i, j, distance, doubt = _pairs(squared <= reach[:, None], start, squared, sides)
        _settle(distance, doubt, radii[i][None], i, j, sides)
        inside = distance <= radii[i] if inclusive else distance < radii[i]
        self.balls_around[:] += np.bincount(j[inside], minlength=len(self.balls_around))
        np.add.at(self.fakes_inside, (i[inside], groups[j[inside]]), 1)

    def add_fake_balls(
        self,
        start: int,
        squared: Tensor,
        sides: tuple[Points, Points],
        radii: Floats,
        groups: Integers,
        inclusive: bool,
    ) -> None:
        """Reals of this chunk inside the balls of the fakes, which grow without a group."""
        rows = slice(start, start + len(squared))
        reach = torch.from_numpy(radii.max(axis=0)).to(squared.device)
        reach = reach + sides[1].doubt + sides[0].doubt[rows].max()
        i, j, distance, doubt = _pairs(squared <= reach[None, :], start, squared, sides)
        _settle(distance, doubt, radii[:, j], i, j, sides)
        for case, limits in enumerate(radii):
            inside = distance <= limits[j] if inclusive else distance < limits[j]
            inside &= groups[j] != case - 1
            self.recalled[case, i[inside]] = True

    def scores(self, groups: Integers, k: int) -> list[NeighbourScores]:
        """All fakes, then without each group."""
        cases = []
        everything = self.fakes_inside.sum(axis=1)
        for case, recalled in enumerate(self.recalled):
            around = self.balls_around[groups != case - 1]
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


def _pairs(
    chosen: Tensor, start: int, squared: Tensor, sides: tuple[Points, Points]
) -> tuple[Integers, Integers, Floats, Floats]:
    """The chosen pairs of a chunk: real index, fake index, distance, and its rounding error."""
    row, column = torch.nonzero(chosen, as_tuple=True)
    doubt = sides[0].doubt[row + start] + sides[1].doubt[column]
    found = (row + start, column, squared[row, column], doubt)
    i, j, distance, error = (values.cpu().numpy() for values in found)
    return i, j, distance, error


def _settle(
    distance: Floats,
    doubt: Floats,
    limits: Floats,
    i: Integers,
    j: Integers,
    sides: tuple[Points, Points],
) -> None:
    """Replace, in place, the distances that rounding could put on the wrong side of a limit."""
    near = np.zeros(len(distance), dtype=bool)
    for limit in limits:
        near |= np.abs(distance - limit) <= doubt
    distance[near] = exact_distances(sides[0].given, sides[1].given, i[near], j[near])
