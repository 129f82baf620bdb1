"""The nearest few of one set for each sample of another, exactly, in bounded memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluator.metrics.distances import MANY, Distances, Points, Screen, pieces
from evaluator.metrics.intervals import Floats, Integers

NOBODY = -1
"""Index of a neighbour that does not exist."""


class Nearest(NamedTuple):
    """The nearest of each row, from near to far; of equally near ones the first comes first."""

    keys: Floats
    """(N, count), infinite where there are fewer."""
    indices: Integers
    """(N, count) columns; `NOBODY` where there are fewer."""

    @classmethod
    def nobody(cls, n: int, count: int) -> Nearest:
        """Lists to be filled, block by block in ascending columns."""
        return cls(np.full((n, count), np.inf), np.full((n, count), NOBODY))

    def candidates(self, rows: slice, keys: Tensor, doubt: Tensor, floor: float) -> Tensor:
        """(rows, columns) which pairs of a block may be nearer than what the lists hold."""
        count, last = self.keys.shape[1], torch.from_numpy(self.keys[rows, -1]).to(keys.device)
        limit = last
        if keys.shape[1] >= count and bool(last.isinf().any()):
            worst = (keys + doubt).topk(count, dim=1, largest=False).values[:, -1]
            limit = torch.minimum(last, worst.to(torch.float64))
        near = keys - doubt <= limit.to(keys.dtype)[:, None]
        # infinite keys do not count; a list full of the nearest there can be takes nobody
        return near.logical_and_(keys < torch.inf).logical_and_((last > floor)[:, None])

    def merge(self, i: Integers, j: Integers, key: Floats) -> None:
        """Take pairs of row i and column j into the lists."""
        count, changed = self.keys.shape[1], np.unique(i)
        row = np.concatenate([changed.repeat(count), i])
        keys = np.concatenate([self.keys[changed].ravel(), key])
        columns = np.concatenate([self.indices[changed].ravel(), j])
        order = np.lexsort((columns, keys, row))
        first = np.searchsorted(row[order], changed)
        kept = order[first[:, None] + np.arange(count)]
        self.keys[changed], self.indices[changed] = keys[kept], columns[kept]


def nearest(screen: Screen, count: int, *, own: Integers | None = None) -> Nearest:
    """The `count` nearest columns of each row; its `own` (N,) column, where given, is left out."""
    found = Nearest.nobody(screen.shape[0], count)
    for rows in pieces(screen.shape[0]):
        for columns in pieces(screen.shape[1]):
            for dtype in screen.precisions:
                keys, doubt = screen.approximate(rows, columns, dtype)
                if own is not None:
                    _leave_out(keys, own[rows] - columns.start)
                near = found.candidates(rows, keys, doubt, screen.floor)
                if not _too_many(near, count):
                    break
            i, j = _pairs(near, rows, columns)
            found.merge(i, j, screen.exact(i, j))
    return found


def nearest_others(points: Points, count: int) -> Nearest:
    """The `count` nearest other points of each point, from half of all blocks."""
    screen, n = Distances(points, points), len(points.norms)
    found = Nearest.nobody(n, count)
    for rows in pieces(n):
        for columns in (piece for piece in pieces(n) if piece.start >= rows.start):
            apart = columns.start > rows.start
            for dtype in screen.precisions:
                keys, doubt = screen.approximate(rows, columns, dtype)
                if not apart:
                    keys.fill_diagonal_(torch.inf)
                near = found.candidates(rows, keys, doubt, screen.floor)
                back = found.candidates(columns, keys.T, doubt.T, screen.floor) if apart else near
                if not (_too_many(near, count) or _too_many(back, count)):
                    break
            i, j = _pairs(near, rows, columns)
            found.merge(i, j, screen.exact(i, j))
            if apart:
                j, i = _pairs(back, columns, rows)
                found.merge(j, i, screen.exact(j, i))
    return found


def _leave_out(keys: Tensor, own: Integers) -> None:
    """Make each row's own column of a block infinite, where the block has it."""
    here = np.flatnonzero((own >= 0) & (own < keys.shape[1]))
    keys[torch.from_numpy(here), torch.from_numpy(own[here])] = torch.inf


def _too_many(near: Tensor, count: int) -> bool:
    """Whether it is cheaper to screen a block again than to compute all these pairs."""
    return int(near.sum()) > MANY * near.numel() + 2 * count * len(near)


def _pairs(near: Tensor, rows: slice, columns: slice) -> tuple[Integers, Integers]:
    """Row and column numbers of the pairs of a block."""
    i, j = (index.cpu().numpy() for index in torch.nonzero(near, as_tuple=True))
    return i + rows.start, j + columns.start
