"""Kernel distance: the squared MMD under a polynomial kernel, unbiased ("KID" on Inception).

Bińkowski et al. 2018, section 4: k(x, y) = (x·y / D + 1)³.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_pair
from evaluator.metrics.intervals import Floats, Integers

CHUNK_ELEMENTS = 1 << 20
"""Entries of a kernel matrix that are held at one time: 8 MiB."""
STRIP = 256
"""Rows of a chunk: what lies below the diagonal of a symmetric matrix is left out by strips."""


class KernelDistanceValue(NamedTuple):
    """A kernel distance over random subsets."""

    mean: float
    std: float
    """Population standard deviation over the subsets."""

    @classmethod
    def over(cls, values: Floats) -> KernelDistanceValue:
        """Of the distance in each subset (S,)."""
        return cls(float(values.mean()), float(values.std()))


@dataclass(frozen=True, slots=True)
class Subsets:
    """Random subsets, without replacement, of each of two sets."""

    first: Integers
    """(S, size) indices of samples of the first set."""
    second: Integers
    """(S, size) indices of samples of the second set."""

    @classmethod
    def drawn(cls, n: int, m: int, count: int, size: int, seed: int) -> Subsets:
        """`count` subsets, each time of the first set and then of the second."""
        generator = np.random.default_rng(seed)
        drawn = np.empty((2, count, size), dtype=np.int64)
        for index in range(count):
            drawn[0, index] = generator.choice(n, size, replace=False)
            drawn[1, index] = generator.choice(m, size, replace=False)
        return cls(drawn[0], drawn[1])

    def distances(self, within: Tensor, second: Tensor, cross: Tensor) -> KernelDistanceValue:
        """The unbiased MMD² over the subsets, from the kernel sums (S,) of each."""
        size = self.first.shape[1]
        pairs = size * (size - 1)
        values = within / pairs + second / pairs - 2.0 * cross / size**2
        return KernelDistanceValue.over(values.cpu().numpy())


class Features(Protocol):
    """(N, D) features: a tensor, or what makes its rows when they are asked for."""

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice) -> Tensor: ...


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
        base = torch.addmm(x.new_full((1, 1), self.coef), x, y.T, alpha=gamma)
        if self.degree == 1:
            return base
        # products: the general power takes several times as long
        powered = base * base
        for _ in range(self.degree - 2):
            powered *= base
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
    subsets = Subsets.drawn(len(first), len(second), num_subsets, subset_size, seed)
    # the kernel of all pairs, once, may cost less than that of every subset
    if num_subsets * subset_size**2 >= (len(first) + len(second)) ** 2 / 4:
        alone = np.zeros(len(first), dtype=np.int64)
        return kernel_sums(first, second, alone, 1, kernel, subsets)[1]
    values = [
        _full_sample(first[torch.from_numpy(x)], second[torch.from_numpy(y)], kernel)
        for x, y in zip(subsets.first, subsets.second, strict=True)
    ]
    return KernelDistanceValue.over(np.array(values))


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
    first: Features, second: Features, groups: Integers, num_groups: int, kernel: Kernel
) -> GroupSums:
    """Kernel sums of (N, D) and (M, D) float tensors, by `groups` (N,) of the first."""
    none = Subsets(*np.empty((2, 0, 2), dtype=np.int64))
    return kernel_sums(first, second, groups, num_groups, kernel, none)[0]


def kernel_sums(
    first: Features,
    second: Features,
    groups: Integers,
    num_groups: int,
    kernel: Kernel,
    subsets: Subsets,
) -> tuple[GroupSums, KernelDistanceValue]:
    """The sums by group, and the distance over `subsets`, from one pass over all pairs."""
    members = torch.from_numpy(np.eye(num_groups)[groups]).to(first.device)
    everyone = members.new_ones(len(second), 1)
    sides = (
        _Weights(members, _membership(subsets.first, members)),
        _Weights(everyone, _membership(subsets.second, everyone)),
    )
    within, chosen = _pair_sums(first, sides[0], kernel)
    other, chosen_other = _pair_sums(second, sides[1], kernel)
    cross, chosen_cross = _cross_sums(first, second, sides, kernel)
    sums = GroupSums(
        within=within.cpu().numpy(),
        cross=cross.flatten().cpu().numpy(),
        second=float(other),
        sizes=np.bincount(groups, minlength=num_groups).astype(np.int64),
        n_second=len(second),
    )
    if len(subsets.first) == 0:
        return sums, KernelDistanceValue(float("nan"), float("nan"))
    return sums, subsets.distances(chosen, chosen_other, chosen_cross)


def _full_sample(first: Tensor, second: Tensor, kernel: PolynomialKernel) -> float:
    """The unbiased MMD² of (N, D) and (M, D) float64 tensors."""
    return group_sums(first, second, np.zeros(len(first), np.int64), 1, kernel).unbiased()


class _Weights(NamedTuple):
    """Which sums each sample belongs to."""

    groups: Tensor
    """(N, G) one-hot."""
    subsets: Tensor
    """(N, S) 0 or 1."""

    def part(self, start: int, length: int) -> _Weights:
        return _Weights(*(weights[start : start + length] for weights in self))


def _membership(subsets: Integers, like: Tensor) -> Tensor:
    """(S, size) indices → (N, S) 0 or 1, float64."""
    marks = like.new_zeros(len(like), len(subsets))
    for index, chosen in enumerate(subsets):
        marks[torch.from_numpy(chosen), index] = 1.0
    return marks


def _block_sums(block: Tensor, rows: _Weights, columns: _Weights) -> tuple[Tensor, Tensor]:
    """A kernel block's sums over pairs of groups (G, H), and over each subset (S,)."""
    left = torch.cat(rows, dim=1).T @ block
    num_groups = rows.groups.shape[1]
    picked = (left[num_groups:] * columns.subsets.T).sum(dim=1)
    return left[:num_groups] @ columns.groups, picked


def _steps() -> tuple[int, int]:
    """Rows and columns of a chunk."""
    rows = min(STRIP, max(1, math.isqrt(CHUNK_ELEMENTS)))
    return rows, max(1, CHUNK_ELEMENTS // rows)


def _cross_sums(
    first: Features, second: Features, weights: tuple[_Weights, _Weights], kernel: Kernel
) -> tuple[Tensor, Tensor]:
    """Kernel sums over pairs of a sample of the first set and one of the second.

    Columns are the outer loop: making many rows float64 costs about half of their products.
    """
    totals = None
    strip, wide = _steps()
    for other in range(0, len(second), wide):
        columns = second[other : other + wide].to(torch.float64)
        theirs = weights[1].part(other, wide)
        for start in range(0, len(first), strip):
            block = kernel(first[start : start + strip].to(torch.float64), columns)
            sums = _block_sums(block, weights[0].part(start, strip), theirs)
            totals = sums if totals is None else (totals[0] + sums[0], totals[1] + sums[1])
    assert totals is not None
    return totals


def _pair_sums(values: Features, weights: _Weights, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """Kernel sums over ordered pairs i != j of one set.

    Beyond the squares on the diagonal only pairs with i < j are evaluated; the others are the
    transpose.
    """
    strip, wide = _steps()
    total = weights.groups.new_zeros(weights.groups.shape[1], weights.groups.shape[1])
    picked = weights.groups.new_zeros(weights.subsets.shape[1])

    def add(sums: tuple[Tensor, Tensor], *, both_ways: bool) -> None:
        total.add_(sums[0] + sums[0].T if both_ways else sums[0])
        picked.add_(sums[1], alpha=2.0 if both_ways else 1.0)

    for left in range(0, len(values), wide):
        columns, theirs = values[left : left + wide].to(torch.float64), weights.part(left, wide)
        for start in range(0, left, strip):
            length = min(strip, left - start)
            rows = values[start : start + length].to(torch.float64)
            add(_block_sums(kernel(rows, columns), weights.part(start, length), theirs),
                both_ways=True)  # fmt: skip
        for start in range(0, len(columns), strip):
            rows, own = columns[start : start + strip], theirs.part(start, strip)
            square = kernel(rows, rows).fill_diagonal_(0.0)
            add(_block_sums(square, own, own), both_ways=False)
            after = start + strip
            if after < len(columns):
                far = kernel(rows, columns[after:])
                add(_block_sums(far, own, theirs.part(after, wide)), both_ways=True)
    return total, picked
