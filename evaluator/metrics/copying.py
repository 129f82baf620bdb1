"""C_T: whether generated samples lie nearer to the training set than held-out samples do.

Meehan, Chaudhuri and Dasgupta 2020, section 3 and 4.1: the space is cut into cells; in each, the
distances of generated and of held-out samples to their nearest training sample of the cell are
compared by the Mann–Whitney U, standardised (Z_U); C_T is the mean of Z_U weighted by the held-out
samples of a cell. Far below 0: training data are copied. Far above 0: the model underfits.

Defaults are those of dgm-eval (Stein et al. 2023): 64 principal components of the training set,
three cells by k-means, cells with more than 20 generated samples, and the continuity term 1/2 of
the authors' code. Deviation: k-means is seeded, so the number can be repeated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_feature_sets
from evaluator.metrics.clusters import cells_of, k_means
from evaluator.metrics.distances import Distances, pieces, points_of
from evaluator.metrics.intervals import Floats, Integers
from evaluator.metrics.nearest import nearest
from evaluator.metrics.options import whole_number

COMPONENTS = 64
"""Principal components of the training set that are kept."""
CELLS = 3
"""Cells of the space."""
LEAST_GENERATED = 20
"""A cell with no more generated samples does not count."""


def ct_score(
    train: ArrayLike,
    held_out: ArrayLike,
    generated: ArrayLike,
    *,
    cells: int = CELLS,
    components: int = COMPONENTS,
    seed: int = 0,
) -> float:
    """C_T of (M, D) generated features against (N, D) train and (K, D) held-out features.

    About standard normal for samples like the held-out ones; negative for copies. `seed` of the
    cells. Memory beyond the inputs: D × D, and `components` numbers a sample.
    """
    sets = as_feature_sets(train=train, held_out=held_out, generated=generated)
    return compare_cells(*sets, cells=cells, components=components, seed=seed).score()


class CellRanks(NamedTuple):
    """All that C_T and its jackknife are computed from; C cells."""

    weights: Floats
    """(C,) held-out samples in each."""
    cell: Integers
    """(M,) cell of each generated sample."""
    below: Floats
    """(M,) held-out samples of the cell that are nearer to the training set; ties are halves."""

    def score(self, kept: Integers | None = None) -> float:
        """C_T of all generated samples, or of those `kept`; the cells that count stay the same."""
        counts = np.bincount(self.cell, minlength=len(self.weights))
        enough = counts > LEAST_GENERATED
        if not enough.any():
            raise MetricError(
                f"generated: expected a cell with more than {LEAST_GENERATED} samples, got at most "
                f"{counts.max(initial=0)} of {len(self.cell)}; generate more samples or lower cells"
            )
        chosen = np.arange(len(self.cell)) if kept is None else kept
        cell, below = self.cell[chosen], self.below[chosen]
        m, n = np.bincount(cell, minlength=len(self.weights)), self.weights
        u = np.bincount(cell, weights=below, minlength=len(self.weights))
        enough &= m > 0
        expected = n * m / 2.0 - 0.5
        spread = np.sqrt(np.where(enough, n * m * (n + m + 1.0) / 12.0, 1.0))
        scores = (u - expected) / spread
        return float(np.average(scores[enough], weights=n[enough]))


def compare_cells(
    train: Tensor, held_out: Tensor, generated: Tensor, *, cells: int, components: int, seed: int
) -> CellRanks:
    """Cells, and the rank of each generated sample among the held-out ones of its cell."""
    whole_number("cells", cells, at_least=1)
    whole_number("components", components, at_least=1)
    whole_number("seed", seed, at_least=0)
    if len(train) < cells:
        raise MetricError(
            f"train: expected at least {cells} samples for {cells} cells, got {len(train)}; "
            "add samples or lower cells"
        )
    sets = _reduced((train, held_out, generated), components)
    centres = k_means(sets[0], cells, seed=seed)
    where = [cells_of(values, centres) for values in sets]
    weights, below = np.zeros(cells), np.zeros(len(generated))
    for cell in range(cells):
        members = [np.flatnonzero(found == cell) for found in where]
        if not (len(members[0]) and len(members[1])):
            raise MetricError(
                f"cell {cell} of {cells}: expected train and held-out samples, got "
                f"{len(members[0])} and {len(members[1])}; lower cells or add samples"
            )
        weights[cell] = len(members[1])
        known, *others = (values[index] for values, index in zip(sets, members, strict=True))
        usual, new = (_to_nearest(known, values) for values in others)
        usual.sort()
        left, right = (np.searchsorted(usual, new, side=side) for side in ("left", "right"))
        below[members[2]] = (left + right) / 2.0
    return CellRanks(weights, where[2], below)


def _to_nearest(known: Floats, values: Floats) -> Floats:
    """(N,) squared distance of each of the values to the nearest known sample."""
    if not len(values):
        return np.empty(0)
    first, second = points_of(torch.from_numpy(known), torch.from_numpy(values))
    return nearest(Distances(second, first), 1).keys[:, 0]


def _reduced(sets: tuple[Tensor, ...], components: int) -> list[Floats]:
    """The sets as float64, on the first principal components of the first one where D is larger."""
    train = sets[0]
    if train.shape[1] <= components:
        return [values.to(torch.float64).cpu().numpy() for values in sets]
    total = sum(train[piece].to(torch.float64).sum(dim=0) for piece in pieces(len(train)))
    mean = torch.as_tensor(total) / len(train)
    scatter = torch.zeros(train.shape[1], train.shape[1], dtype=torch.float64, device=train.device)
    for piece in pieces(len(train)):
        centred = train[piece].to(torch.float64) - mean
        scatter.addmm_(centred.T, centred)
    axes = torch.linalg.eigh(scatter).eigenvectors[:, -components:].flip(1)
    return [
        torch.cat(
            [(values[piece].to(torch.float64) - mean) @ axes for piece in pieces(len(values))]
        )
        .cpu()
        .numpy()
        if len(values)
        else np.empty((0, components))
        for values in sets
    ]
