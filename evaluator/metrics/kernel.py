"""Kernel distance: the squared MMD under a polynomial kernel, unbiased ("KID" on Inception).

Bińkowski et al. 2018, section 4: k(x, y) = (x·y / D + 1)³.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_pair
from evaluator.metrics.intervals import Floats, Integers

CHUNK_ELEMENTS = 1 << 22
"""Entries of a kernel matrix that are held at one time: 32 MiB."""


class KernelDistanceValue(NamedTuple):
    """A kernel distance over random subsets."""

    mean: float
    std: float
    """Population standard deviation over the subsets."""


class Kernel(Protocol):
    """A similarity of two feature vectors, symmetric."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, D) and (M, D) → a new (N, M) tensor, which the caller may change."""
        ...


@dataclass(frozen=True, slots=True)
class PolynomialKernel:
    """k(x, y) = (gamma · x·y + coef) ** degree."""

    degree: int = 3
    gamma: float | None = None
    """None stands for 1 / D."""
    coef: float = 1.0

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, D) and (M, D) → (N, M)."""
        gamma = 1.0 / x.shape[1] if self.gamma is None else self.gamma
        base = (x @ y.T).mul_(gamma).add_(self.coef)
        powered = base
        # products: the general power takes several times as long
        for _ in range(self.degree - 1):
            powered = powered * base
        return powered


CUBIC = PolynomialKernel()


def kernel_distance(
    a: ArrayLike,
    b: ArrayLike,
    *,
    num_subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
    kernel: PolynomialKernel = CUBIC,
) -> KernelDistanceValue:
    """Mean and standard deviation of the unbiased MMD² of random subsets of (N, D) and (M, D).

    Subsets are drawn without replacement, each time of `a` and then of `b`, from
    `numpy.random.default_rng(seed)`. May be negative: the estimator is unbiased.
    """
    first, second = as_pair(a, b, ("a", "b"), at_least=2)
    fewest = min(len(first), len(second))
    if not 2 <= subset_size <= fewest or num_subsets < 1:
        raise MetricError(
            f"kernel distance: expected at least 1 subset of 2 to {fewest} samples, got "
            f"{num_subsets} of {subset_size}; lower subset_size or add samples"
        )
    generator = np.random.default_rng(seed)
    values = np.empty(num_subsets)
    for index in range(num_subsets):
        x = first[torch.from_numpy(generator.choice(len(first), subset_size, replace=False))]
        y = second[torch.from_numpy(generator.choice(len(second), subset_size, replace=False))]
        values[index] = _full_sample(x, y, kernel)
    return KernelDistanceValue(float(values.mean()), float(values.std()))


def kernel_distance_unbiased(
    a: ArrayLike, b: ArrayLike, *, kernel: PolynomialKernel = CUBIC
) -> float:
    """The unbiased MMD² of all samples (Gretton et al. 2012, eq. 3), in row chunks.

    The subsets' mean has the same expectation and more noise.
    """
    first, second = as_pair(a, b, ("a", "b"), at_least=2)
    return _full_sample(first, second, kernel)


@dataclass(frozen=True, slots=True)
class GroupSums:
    """Sums of kernel values by group of the first set: enough for every leave-one-out value."""

    within: Floats
    """(G, G) sums over ordered pairs of different samples of the first set."""
    cross: Floats
    """(G,) sums over pairs of a sample of the first set and one of the second."""
    second: float
    """Sum over ordered pairs of different samples of the second set."""
    sizes: Integers
    """(G,) samples of the first set in each group."""
    n_second: int
    """Samples of the second set."""

    def unbiased(self, *, leave_out: int | None = None) -> float:
        """The unbiased MMD² of all groups, or of all but one."""
        kept = np.arange(len(self.sizes)) != (-1 if leave_out is None else leave_out)
        n, m = int(self.sizes[kept].sum()), self.n_second
        within = float(self.within[np.ix_(kept, kept)].sum()) / (n * (n - 1))
        cross = float(self.cross[kept].sum()) / (n * m)
        return within + self.second / (m * (m - 1)) - 2.0 * cross


def group_sums(
    first: Tensor, second: Tensor, groups: Integers, num_groups: int, kernel: Kernel
) -> GroupSums:
    """Kernel sums of (N, D) and (M, D) float64 tensors, by `groups` (N,) of the first."""
    members = torch.from_numpy(np.eye(num_groups)[groups]).to(first.device)
    everyone = second.new_ones(len(second), 1)
    step = max(1, CHUNK_ELEMENTS // len(second))
    cross = sum(
        members[start : start + step].T @ kernel(first[start : start + step], second) @ everyone
        for start in range(0, len(first), step)
    )
    assert isinstance(cross, Tensor)
    return GroupSums(
        within=_pair_sums(first, members, kernel).cpu().numpy(),
        cross=cross.flatten().cpu().numpy(),
        second=float(_pair_sums(second, everyone, kernel)),
        sizes=np.bincount(groups, minlength=num_groups).astype(np.int64),
        n_second=len(second),
    )


def _full_sample(first: Tensor, second: Tensor, kernel: PolynomialKernel) -> float:
    """The unbiased MMD² of (N, D) and (M, D) float64 tensors."""
    return group_sums(first, second, np.zeros(len(first), np.int64), 1, kernel).unbiased()


def _pair_sums(values: Tensor, members: Tensor, kernel: Kernel) -> Tensor:
    """(G, G) kernel sums over ordered pairs i != j; `members` (N, G) is one-hot.

    Only pairs with i < j across chunks are evaluated; the others are the transpose.
    """
    total = members.new_zeros(members.shape[1], members.shape[1])
    step = max(1, CHUNK_ELEMENTS // len(values))
    for start in range(0, len(values), step):
        rows, end = values[start : start + step], min(start + step, len(values))
        block = kernel(rows, rows)
        block.fill_diagonal_(0.0)
        total += members[start:end].T @ block @ members[start:end]
        if end < len(values):
            later = members[start:end].T @ kernel(rows, values[end:]) @ members[end:]
            total += later + later.T
    return total
