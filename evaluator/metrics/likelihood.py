"""FLS: the likelihood that generated samples, made into a density, give to held-out samples.

Jiralerspong et al. 2023, section 3: each generated sample becomes a Gaussian with a variance of
its own, the variances are fitted to the training set, and the mixture is judged by the held-out
set. A copy of a training sample fits itself a tiny variance, which helps no held-out sample: so
memorization costs, as do bad samples and missing modes.

As in dgm-eval (Stein et al. 2023): features are standardised over all sets together, log variances
start at 0 and take 100 steps of Adam (rate 0.5, 0.05 after 50 steps) within [-100, 20], and the
score is 100·exp(−2 (NLL − baseline NLL) / D), where half of the training set, fitted to the other
half, is the baseline. About 100: as good as training data. Higher is better. (The authors' later
code reports 100·(NLL − baseline NLL)/D, lower is better, under the same name.)

Deviations: float64 throughout, distances near 0 by the direct formula, constant features are left
out. The sets are split and cut to equal numbers of centres by a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import ArrayLike, as_feature_sets
from evaluator.metrics.distances import Distances, pieces, points_of
from evaluator.metrics.intervals import Integers
from evaluator.metrics.options import whole_number

STEPS = 100
"""Of Adam; the rate falls to a tenth after half of them."""
RATE = 0.5
LOWEST, HIGHEST = -100.0, 20.0
"""Of a log variance."""
NEAR_NOTHING = 1e4
"""Squared distances below this multiple of their rounding error are computed directly."""


def fls(train: ArrayLike, held_out: ArrayLike, generated: ArrayLike, *, seed: int = 0) -> float:
    """FLS of (M, D) generated features, given (N, D) train and (K, D) held-out features.

    0 and above, about 100 for training data; `seed` of the split. The number of centres is the
    smaller of M and N / 2. Holds 8 bytes for each pair of a centre and a sample of another set.
    """
    sets = as_feature_sets(train=train, held_out=held_out, generated=generated)
    return Likelihoods.of(*sets, seed=seed).score()


@dataclass(frozen=True, slots=True, eq=False)
class Likelihoods:
    """The fitted density of generated samples, as the held-out samples see it."""

    terms: Tensor
    """(K, M) log density of each centre at each held-out sample."""
    kept: Integers
    """(M,) indices of the generated samples that are centres, ascending."""
    baseline: float
    """NLL of the held-out samples under the density of training samples."""
    dim: int
    """Features that are not constant."""

    @classmethod
    def of(cls, train: Tensor, held_out: Tensor, generated: Tensor, *, seed: int) -> Likelihoods:
        """Split, standardise, fit."""
        whole_number("seed", seed, at_least=0)
        count = min(len(train) // 2, len(generated))
        if count < 1 or not len(held_out):
            raise MetricError(
                "expected at least 2 train, 1 held-out and 1 generated samples, got "
                f"{len(train)}, {len(held_out)} and {len(generated)}; add samples"
            )
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(train))
        kept = np.sort(generator.choice(len(generated), count, replace=False))
        half, other, centres = (
            values[torch.from_numpy(np.sort(index)).to(values.device)].to(torch.float64)
            for values, index in (
                (train, order[:count]),
                (train, order[count : 2 * count]),
                (generated, kept),
            )
        )
        half, other, judged, centres = _standardised(
            half, other, held_out.to(torch.float64), centres
        )
        dim = half.shape[1]
        terms = _log_terms(judged, centres, _fitted(half, centres))
        usual = _log_terms(judged, other, _fitted(half, other))
        return cls(terms, kept, negative_log_likelihood(usual), dim)

    def without_groups(self, groups: Integers) -> list[float]:
        """FLS without each group 0, 1, … of the centres (M,), the variances kept as fitted."""
        parts = torch.stack(
            [
                self.terms[:, torch.from_numpy(groups == group)].logsumexp(dim=1)
                for group in range(int(groups.max()) + 1)
            ]
        )
        scores = []
        for group, size in enumerate(np.bincount(groups)):
            rest = torch.cat([parts[:group], parts[group + 1 :]]).logsumexp(dim=0)
            scores.append(self.score(math.log(len(groups) - size) - float(rest.mean())))
        return scores

    def score(self, nll: float | None = None) -> float:
        """FLS, or what it would be with another NLL of the generated samples."""
        found = negative_log_likelihood(self.terms) if nll is None else nll
        exponent = -2.0 * (found - self.baseline) / self.dim
        return 100.0 * math.exp(min(exponent, 700.0))


def negative_log_likelihood(terms: Tensor) -> float:
    """Mean over held-out samples of −log of the mean of exp(terms) over centres."""
    return float(math.log(terms.shape[1]) - terms.logsumexp(dim=1).mean())


def _standardised(*sets: Tensor) -> tuple[Tensor, ...]:
    """All sets by the mean and deviation of their features over all of them.

    A set at a time: all of them in one tensor would be as large again.
    """
    count, first = sum(len(values) for values in sets), sets[0][0]
    mean = torch.stack([values.sum(dim=0) for values in sets]).sum(dim=0) / count
    squares = torch.stack([(values - mean).square_().sum(dim=0) for values in sets])
    std = (squares.sum(dim=0) / (count - 1)).sqrt()
    constant = torch.stack([(values == first).all(dim=0) for values in sets]).all(dim=0)
    if bool(constant.all()):
        raise MetricError(
            "features: expected some that differ between samples, got only constant ones; "
            "check the extractor"
        )
    mean, std = mean[~constant], std[~constant]
    return tuple((values[:, ~constant] - mean).div_(std) for values in sets)


def _log_terms(values: Tensor, centres: Tensor, log_variances: Tensor) -> Tensor:
    """(N, M) log density of each centre at each value, without the constant of Gaussians."""
    return _terms(_squared_distances(values, centres), log_variances, values.shape[1])


def _terms(squared: Tensor, log_variances: Tensor, dim: int) -> Tensor:
    """−‖x − y‖² / 2σ² − D log σ, in place."""
    return squared.mul_(-0.5 * torch.exp(-log_variances)).sub_(0.5 * dim * log_variances)


def _squared_distances(values: Tensor, centres: Tensor) -> Tensor:
    """(N, M) float64; a copy is exactly 0 away."""
    screen = Distances(*points_of(values, centres))
    squared = torch.empty(screen.shape, dtype=torch.float64, device=values.device)
    for rows in pieces(screen.shape[0]):
        for columns in pieces(screen.shape[1]):
            block, doubt = screen.approximate(rows, columns, torch.float64)
            near = torch.nonzero(block <= NEAR_NOTHING * doubt).cpu().numpy()
            if len(near):
                exact = screen.exact(near[:, 0] + rows.start, near[:, 1] + columns.start)
                block[tuple(torch.from_numpy(near.T).to(block.device))] = torch.from_numpy(
                    exact
                ).to(block.device)
            squared[rows, columns] = block
    return squared


def _fitted(values: Tensor, centres: Tensor) -> Tensor:
    """(M,) log variances of the centres that make the values likely."""
    squared, dim = _squared_distances(values, centres), values.shape[1]
    log_variances = torch.zeros(len(centres), dtype=torch.float64, device=values.device)
    log_variances.requires_grad_()
    optimizer = torch.optim.Adam([log_variances], lr=RATE)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE if step < STEPS // 2 else RATE / 10.0
        log_variances.grad = _gradient(squared, log_variances.detach(), dim)
        optimizer.step()
        with torch.no_grad():
            log_variances.clamp_(LOWEST, HIGHEST)
    return log_variances.detach()


def _gradient(squared: Tensor, log_variances: Tensor, dim: int) -> Tensor:
    """(M,) derivative of the mean NLL by the log variances: Σ_i w_ij (D − d_ij / σ_j²) / 2N."""
    shares = torch.zeros_like(log_variances)
    spreads = torch.zeros_like(log_variances)
    for piece in pieces(len(squared)):
        weights = _terms(squared[piece].clone(), log_variances, dim).softmax(dim=1)
        shares += weights.sum(dim=0)
        spreads += weights.mul_(squared[piece]).sum(dim=0)
    return (dim * shares - spreads * torch.exp(-log_variances)) / (2.0 * len(squared))
