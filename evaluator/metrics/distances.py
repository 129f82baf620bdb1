"""Squared distances between two sets: screened by blocks, decided by the direct formula.

A matrix product gives all distances of a block quickly and with errors in the last digits. It
serves to rule out; whatever it leaves in doubt is computed again as Σ (x − y)² in float64. So the
answers are those of the direct formula, whether the product ran in float32 or float64, and
memory beyond the sets themselves is bounded by the size of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluator.metrics.intervals import Floats, Integers

BLOCK = 1024
"""Samples of each set in one block."""
PAIRS = 16
"""Pairs that the direct formula takes at a time: few, so that they stay in the cache."""
MANY = 1 / 16
"""A block with a larger share of pairs in doubt is screened again in float64."""

Booleans = NDArray[np.bool_]


class Screen(Protocol):
    """Keys of pairs (row, column), smaller is nearer: approximate by the block, exact by pair."""

    shape: tuple[int, int]
    floor: float
    """No key is below this."""
    precisions: tuple[torch.dtype, ...]
    """Of the approximation, from coarse to fine."""

    def approximate(self, rows: slice, columns: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys of a block and bounds of their errors, both (rows, columns)."""

    def exact(self, rows: Integers, columns: Integers) -> Floats:
        """(P,) keys of pairs: the same pair, the same bits."""


def pieces(n: int) -> Iterator[slice]:
    """The blocks of n samples."""
    for start in range(0, n, BLOCK):
        yield slice(start, min(start + BLOCK, n))


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """One set as given, (N, D) float32 or float64, seen from a centre."""

    given: Tensor
    centre: Tensor
    """(D,), the same for all sets that are compared."""
    norms: Tensor
    """(N,) squared distances from the centre, float64."""

    @classmethod
    def of(cls, values: Tensor, centre: Tensor) -> Points:
        """(N, D) values about a (D,) point that all sets share."""
        norms = torch.empty(len(values), dtype=torch.float64, device=values.device)
        for piece in pieces(len(values)):
            centred = values[piece].to(torch.float64) - centre.to(torch.float64)
            norms[piece] = centred.square().sum(dim=1)
        return cls(values, centre, norms)

    def block(self, piece: slice, dtype: torch.dtype) -> Tensor:
        """Some of the points, centred, with no rounding coarser than that of `dtype`."""
        # the centre too: rounded, it would not be the one that another set is seen from
        given = torch.promote_types(self.given.dtype, self.centre.dtype)
        wide = torch.promote_types(given, dtype)
        return (self.given[piece].to(wide) - self.centre.to(wide)).to(dtype)

    def take(self, indices: Integers) -> Points:
        """Some of the points."""
        chosen = torch.from_numpy(indices).to(self.given.device)
        return Points(self.given[chosen], self.centre, self.norms[chosen])


def points_of(*sets: Tensor) -> tuple[Points, ...]:
    """The sets about the mean of the first: large common offsets would drown the distances."""
    total = torch.zeros(sets[0].shape[1], dtype=torch.float64, device=sets[0].device)
    for piece in pieces(len(sets[0])):
        total += sets[0][piece].to(torch.float64).sum(dim=0)
    centre = total / len(sets[0])
    if all(values.dtype == torch.float32 for values in sets):
        centre = centre.to(torch.float32)
    return tuple(Points.of(values, centre) for values in sets)


class Distances:
    """Squared Euclidean distances as a `Screen`."""

    floor = 0.0

    def __init__(self, rows: Points, columns: Points) -> None:
        self.rows, self.columns = rows, columns
        self.shape = (len(rows.norms), len(columns.norms))
        largest = max(float(points.norms.max()) for points in (rows, columns))
        self.precisions = precisions(largest)
        self._held: tuple[tuple[int, int, torch.dtype], Tensor] | None = None

    def approximate(self, rows: slice, columns: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """‖x‖² + ‖y‖² − 2 x·y, and what rounding can have changed in it and the direct formula."""
        norms = self.rows.norms[rows, None], self.columns.norms[None, columns]
        squared = torch.addmm(
            norms[1].to(dtype),
            self._row_block(rows, dtype),
            self.columns.block(columns, dtype).T,
            alpha=-2.0,
        ).add_(norms[0].to(dtype))
        # (D + 8) ε / 2 for the product and the sums, and D ε more where the direct sum is of the
        # same precision; the constant is for what underflows
        unit = (self.rows.given.shape[1] + 32) * (1.0 if dtype == torch.float32 else 2.0)
        relative, least = unit * torch.finfo(dtype).eps, unit * torch.finfo(dtype).tiny
        doubt = (norms[0] * relative).to(dtype) + (norms[1] * relative + least).to(dtype)
        return squared, doubt

    def _row_block(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Some rows, centred; held, for they meet one block of columns after the other."""
        name = (rows.start, rows.stop, dtype)
        if self._held is None or self._held[0] != name:
            self._held = (name, self.rows.block(rows, dtype))
        return self._held[1]

    def exact(self, rows: Integers, columns: Integers) -> Floats:
        """Σ (x − y)² in float64."""
        return exact_distances(self.rows.given, self.columns.given, rows, columns)


def precisions(largest: float) -> tuple[torch.dtype, ...]:
    """float32 first, unless squares leave its range or products are told to be coarser."""
    usual = 1e-20 < largest < 1e30 and torch.get_float32_matmul_precision() == "highest"
    return (torch.float32, torch.float64) if usual else (torch.float64,)


def exact_distances(a: Tensor, b: Tensor, rows: Integers, columns: Integers) -> Floats:
    """(P,) squared distances of pairs by the direct formula."""
    squared = np.empty(len(rows))
    for start in range(0, len(rows), PAIRS):
        pairs = slice(start, start + PAIRS)
        gap = as_rows(a, rows[pairs]) - as_rows(b, columns[pairs])
        np.multiply(gap, gap, out=gap).sum(axis=1, out=squared[pairs])
    return squared


def as_rows(values: Tensor, indices: Integers) -> Floats:
    """Some rows as float64."""
    if values.device.type == "cpu":
        return values.numpy()[indices].astype(np.float64, copy=False)
    chosen: Floats = values[torch.from_numpy(indices).to(values.device)].double().cpu().numpy()
    return chosen
