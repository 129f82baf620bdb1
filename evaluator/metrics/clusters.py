"""Seeded k-means: Lloyd's iterations from k-means++ starts (Arthur and Vassilvitskii 2007)."""

from __future__ import annotations

import numpy as np

from evaluator.metrics.intervals import Floats, Integers

STARTS = 10
"""Seeded starts; the one with the smallest sum of squares wins, the first of equals."""
ITERATIONS = 300
"""At most, for each start."""


def k_means(values: Floats, cells: int, *, seed: int) -> Floats:
    """(cells, D) centres of the (N, D) values, the same for the same values and seed."""
    generator = np.random.default_rng(seed)
    best, least = values[:cells], np.inf
    for _ in range(STARTS):
        centres = _settled(values, _plus_plus(values, cells, generator))
        spread = float(_squared(values, centres).min(axis=1).sum())
        if spread < least:
            best, least = centres, spread
    return best


def cells_of(values: Floats, centres: Floats) -> Integers:
    """(N,) index of the centre nearest to each value, the first of equals."""
    cells: Integers = _squared(values, centres).argmin(axis=1)
    return cells


def _squared(values: Floats, centres: Floats) -> Floats:
    """(N, cells) squared distances."""
    return np.stack([np.square(values - centre).sum(axis=1) for centre in centres], axis=1)


def _plus_plus(values: Floats, cells: int, generator: np.random.Generator) -> Floats:
    """Starts far from each other: each drawn in proportion to its squared distance."""
    chosen = [int(generator.integers(len(values)))]
    while len(chosen) < cells:
        weights = _squared(values, values[chosen]).min(axis=1)
        total = weights.sum()
        # where all are copies of the chosen, any will do
        shares = weights / total if total > 0.0 else None
        chosen.append(int(generator.choice(len(values), p=shares)))
    return values[chosen]


def _settled(values: Floats, centres: Floats) -> Floats:
    """The centres after Lloyd's iterations; one that has lost all its values stays."""
    cells = cells_of(values, centres)
    for _ in range(ITERATIONS):
        centres = np.stack(
            [
                values[cells == index].mean(axis=0) if (cells == index).any() else centre
                for index, centre in enumerate(centres)
            ]
        )
        moved = cells_of(values, centres)
        if np.array_equal(moved, cells):
            break
        cells = moved
    return centres
