"""Inception score: exp of the mean KL divergence of p(class | image) from p(class).

Salimans et al. 2016, section 4. With p̄ the mean of the p, the mean divergence is
mean(Σ p log p) − Σ p̄ log p̄, so a set of samples enters through three sums only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_matrix
from evaluator.metrics.intervals import Floats, Integers

CHUNK_ROWS = 8192
"""Rows whose probabilities are held at one time."""


class InceptionScoreValue(NamedTuple):
    """An inception score, from 1 to the number of classes."""

    mean: float
    """Mean over the splits: the number that papers report."""
    std: float
    """Population standard deviation over the splits; 0 for one split."""
    single_split: float
    """The score of all samples in one split; higher than the mean, by the splits' bias."""


@dataclass(frozen=True, slots=True)
class CellSums:
    """Sums of class probabilities over cells of samples, a cell being (split, group)."""

    counts: Floats
    """(S, G) samples."""
    probabilities: Floats
    """(S, G, C) sums of p."""
    negative_entropies: Floats
    """(S, G) sums of Σ p log p."""

    def scores(self, *, leave_out: int | None = None) -> Floats:
        """(S,) score of each split, from all groups or all but one."""
        kept = np.arange(self.counts.shape[1]) != (-1 if leave_out is None else leave_out)
        return _score(
            self.counts[:, kept].sum(axis=1),
            self.probabilities[:, kept].sum(axis=1),
            self.negative_entropies[:, kept].sum(axis=1),
        )

    def value(self) -> InceptionScoreValue:
        """The score, with its single-split companion."""
        scores = self.scores()
        single = _score(
            self.counts.sum(keepdims=True)[0],
            self.probabilities.sum(axis=(0, 1))[None],
            self.negative_entropies.sum(keepdims=True)[0],
        )
        return InceptionScoreValue(float(scores.mean()), float(scores.std()), float(single[0]))


def inception_score(logits: ArrayLike, *, splits: int = 10, seed: int = 0) -> InceptionScoreValue:
    """The score of (N, C) logits, in float64.

    Samples are shuffled by `numpy.random.default_rng(seed)` and cut into `splits` contiguous
    pieces whose sizes differ by at most one, so there are exactly as many as asked for.
    """
    values = as_matrix(logits, "logits")
    groups = np.zeros(len(values), dtype=np.int64)
    return cell_sums(values, groups, 1, splits=splits, seed=seed).value()


def cell_sums(
    logits: Tensor, groups: Integers, num_groups: int, *, splits: int, seed: int
) -> CellSums:
    """Sums over (split, group) of (N, C) float64 `logits`, with `groups` (N,)."""
    n, num_classes = logits.shape
    if not 1 <= splits <= n:
        raise MetricError(
            f"inception score: expected 1 to {n} splits of {n} samples, got {splits}; "
            "lower splits or add samples"
        )
    split = np.empty(n, dtype=np.int64)
    order = np.random.default_rng(seed).permutation(n)
    for number, piece in enumerate(np.array_split(order, splits)):
        split[piece] = number
    cells = torch.from_numpy(split * num_groups + groups).to(logits.device)
    num_cells = splits * num_groups
    probabilities = logits.new_zeros(num_cells, num_classes)
    negative = logits.new_zeros(num_cells)
    for start in range(0, n, CHUNK_ROWS):
        log_p = torch.log_softmax(logits[start : start + CHUNK_ROWS], dim=1)
        p, cell = log_p.exp(), cells[start : start + CHUNK_ROWS]
        probabilities.index_add_(0, cell, p)
        # p underflows to 0 long before log p stops being finite, so p log p has no NaN
        negative.index_add_(0, cell, (p * log_p).sum(dim=1))
    shape = (splits, num_groups)
    return CellSums(
        counts=np.bincount(cells.cpu().numpy(), minlength=num_cells).reshape(shape).astype(float),
        probabilities=probabilities.cpu().numpy().reshape(*shape, num_classes),
        negative_entropies=negative.cpu().numpy().reshape(shape),
    )


def _score(counts: Floats, probabilities: Floats, negative_entropies: Floats) -> Floats:
    """exp(mean KL) of each row; a row without samples is NaN and left to the caller."""
    with np.errstate(divide="ignore", invalid="ignore"):
        marginal = probabilities / counts[:, None]
        logs = np.log(marginal, out=np.zeros_like(marginal), where=marginal > 0)
        divergence = negative_entropies / counts - (marginal * logs).sum(axis=1)
    # rounding may leave an all-equal set a hair below 0
    scores: Floats = np.exp(np.maximum(divergence, 0.0))
    return scores
