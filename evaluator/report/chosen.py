"""Which samples get pictures, and which of them a larger one: those that matter, then the first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluator.report.listing import SampleList
from evaluator.report.scores import Scores

NUM_EXTREMES = 16
"""Samples at either end of each score that get pictures before others."""

NUM_FLAWED = 64
NUM_LARGE = 256
"""Samples that get a picture larger than a thumbnail."""

Positions = NDArray[np.int64]


class Chosen(NamedTuple):
    """Positions in the plan."""

    pictures: list[int]
    """In the order of the plan."""
    large: set[int]


def choose(samples: SampleList, scores: Scores, limit: int) -> Chosen:
    """At most `limit` listed samples: flawed ones, both ends of each score, the first of the plan.

    The choice depends on the tables alone. Samples with an error have no picture.
    """
    listed = samples.positions()
    able = listed[samples.there[listed]]
    ends = [_ends(score.values, able) for score in scores.found()]
    queue = np.concatenate([_flawed(samples)[:NUM_FLAWED], *ends, able])
    _, first = np.unique(queue, return_index=True)
    ordered = queue[np.sort(first)]
    kept = ordered[np.isin(ordered, able)][:limit].tolist()
    return Chosen(sorted(kept), set(kept[:NUM_LARGE]))


def _ends(values: NDArray[np.float64], able: Positions) -> Positions:
    """The lowest and the highest, the first of equals."""
    finite = able[np.isfinite(values[able])]
    ranks = np.argsort(values[finite], kind="stable")
    down = np.argsort(-values[finite], kind="stable")
    return np.concatenate([finite[ranks[:NUM_EXTREMES]], finite[down[:NUM_EXTREMES]]])


def _flawed(samples: SampleList) -> Positions:
    found = [
        start + i
        for start, table in samples.tables
        if "flaw" in table.column_names and table.column("flaw").null_count < len(table)
        for i, flaw in enumerate(table.column("flaw").to_pylist())
        if flaw is not None
    ]
    return np.array(found, np.int64)
