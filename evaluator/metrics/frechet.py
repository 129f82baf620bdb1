"""Fréchet distance of two Gaussians: ‖Δμ‖² + Tr Σ₁ + Tr Σ₂ − 2 Tr (Σ₁Σ₂)^½.

Heusel et al. 2017, eq. 6 (Dowson and Landau 1982). "FID" is this distance on Inception features.
The trace of the root is never taken of a nonsymmetric product, so nothing complex can appear:

- covariances of full rank: Σ₁ = LLᵀ, and the roots of the eigenvalues of LᵀΣ₂L;
- otherwise, or where those eigenvalues are too spread for their roots to be exact: Σᵢ = FᵢᵀFᵢ
  with as many rows as the rank, and the singular values of F₁F₂ᵀ. A covariance that was rounded
  to float32 may have eigenvalues a hair below 0: the nearest matrix without them is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import EPSILON, ArrayLike, as_float64, as_pair
from evaluator.metrics.moments import Moments

ACCURACY = 1e-10
"""Largest error that the eigenvalue path may have in the worst case, relative to Tr Σ₁ + Tr Σ₂.

The errors met with are smaller by five digits; the singular values take four times as long.
"""

BLOCK = 256
"""Side of the blocks of a triangular product."""


def frechet_distance(
    mean_a: ArrayLike,
    cov_a: ArrayLike,
    mean_b: ArrayLike,
    cov_b: ArrayLike,
    *,
    accuracy: float = ACCURACY,
) -> float:
    """The distance of N(mean_a, cov_a) and N(mean_b, cov_b): (D,) means, (D, D) covariances.

    Symmetric in its two Gaussians, 0 or more. Covariances may have any rank, 0 included.
    `accuracy` is the worst error allowed on the faster path; see `ACCURACY`.
    Raises MetricError when one is not symmetric or not positive semidefinite.
    """
    means = as_float64(mean_a, "mean_a"), as_float64(mean_b, "mean_b")
    covs = _covariance(cov_a, "cov_a", means[0]), _covariance(cov_b, "cov_b", means[1])
    if means[0].shape != means[1].shape:
        raise MetricError(
            f"mean_b: expected dimension {len(means[0])} as in mean_a, got {len(means[1])}; "
            "use one extractor for both"
        )
    return distance_of_traces(means[0] - means[1], *_traces(*covs, accuracy))


def frechet_distance_from_features(a: ArrayLike, b: ArrayLike) -> float:
    """The distance of two feature sets (N, D) and (M, D), with unbiased covariances.

    A set with no more samples than features has a covariance without full rank; there the
    centred features themselves are the factor, and Tr (Σ₁Σ₂)^½ is the nuclear norm of
    X_c Y_cᵀ / sqrt((N-1)(M-1)), exact and on the small side.
    """
    first, second = as_pair(a, b, ("a", "b"), at_least=2)
    if min(len(first), len(second)) > first.shape[1]:
        moments = Moments.from_features(first), Moments.from_features(second)
        return frechet_distance(
            moments[0].mean, moments[0].covariance(), moments[1].mean, moments[1].covariance()
        )
    factors = [_centred_factor(values) for values in (first, second)]
    own = sum(float(factor.square().sum()) for factor in factors)
    root = float(torch.linalg.svdvals(factors[0] @ factors[1].T).sum())
    return distance_of_traces(first.mean(dim=0) - second.mean(dim=0), own, root)


def distance_of_traces(difference: Tensor, own: float, root: float) -> float:
    """From the (D,) difference of means, Tr Σ₁ + Tr Σ₂ and Tr (Σ₁Σ₂)^½.

    Rounding may leave it a hair below 0.
    """
    value = float(difference @ difference) + own - 2.0 * root
    assert value >= -1e-5 * max(own, 1e-300), "the root's trace is at most the traces' mean"
    return max(value, 0.0)


def _covariance(values: ArrayLike, name: str, mean: Tensor) -> Tensor:
    """A checked (D, D) float64 covariance."""
    cov = as_float64(values, name)
    if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
        raise MetricError(
            f"{name}: expected a (D,) mean and a (D, D) covariance, got {tuple(mean.shape)} and "
            f"{tuple(cov.shape)}; pass both of one feature set"
        )
    scale = float(cov.abs().max())
    if float((cov - cov.T).abs().max()) > 1e-8 * scale:
        raise MetricError(f"{name}: expected a symmetric matrix, got another; pass (C + Cᵀ) / 2")
    return cov


class _Traces(NamedTuple):
    """What the distance takes of two positive semidefinite matrices."""

    own: float
    """Tr Σ₁ + Tr Σ₂."""
    root: float
    """Tr (Σ₁Σ₂)^½."""


def _traces(cov_a: Tensor, cov_b: Tensor, accuracy: float) -> _Traces:
    """The traces, by the fastest path that is exact enough."""
    lower_a = cholesky(cov_a)
    if lower_a is not None:
        own = float(cov_a.trace() + cov_b.trace())
        root = root_trace(congruent(lower_a, cov_b), accuracy * own)
        if root is not None:
            return _Traces(own, root)
    lower_b = cholesky(cov_b)
    factor_a = lower_a.T if lower_a is not None else low_rank_factor(cov_a)
    factor_b = lower_b.T if lower_b is not None else low_rank_factor(cov_b)
    own = float(factor_a.square().sum() + factor_b.square().sum())
    return _Traces(own, float(torch.linalg.svdvals(factor_a @ factor_b.T).sum()))


def root_trace(product: Tensor, error: float, *, rank: int | None = None) -> float | None:
    """Tr (Σ₁Σ₂)^½ from the lower triangle of LᵀΣ₂L; None where it may be wrong by more than that.

    Eigenvalues beyond the `rank` that the product can have are known to be 0.
    """
    eigenvalues = torch.linalg.eigvalsh(product)
    # an eigenvalue w is known to about eps·w_max, its root to that over 2·sqrt(w)
    doubt = 8.0 * EPSILON * float(eigenvalues[-1])
    if float(eigenvalues[0]) < -doubt:
        return None
    kept = eigenvalues if rank is None else eigenvalues[-min(rank, len(eigenvalues)) :]
    roots = kept.clamp(min=doubt).sqrt()
    known = float((0.5 * doubt / roots).sum()) <= error
    return float(roots.sum()) if known else None


def congruent(lower: Tensor, cov: Tensor) -> Tensor:
    """The lower triangle of LᵀΣL; by blocks, so that what is zero or mirrored costs nothing.

    A quarter of the operations of two full products.
    """
    product = torch.zeros_like(cov)
    for left in range(0, len(cov), BLOCK):
        columns = slice(left, left + BLOCK)
        half = cov[left:, left:] @ lower[left:, columns]
        for top in range(left, len(cov), BLOCK):
            rows = slice(top, top + BLOCK)
            product[rows, columns] = lower[top:, rows].T @ half[top - left :]
    return product


def cholesky(cov: Tensor) -> Tensor | None:
    """L with LLᵀ = Σ, or None where Σ has no full numerical rank."""
    lower: Tensor
    lower, info = torch.linalg.cholesky_ex(cov)
    pivots = lower.diagonal().square()
    # a rank-deficient matrix can pass by luck, its last pivots being rounding noise
    if int(info) or float(pivots.min()) <= _noise_floor(cov):
        return None
    return lower


def _noise_floor(cov: Tensor) -> float:
    """Pivots below this are rounding noise."""
    return 4.0 * len(cov) * EPSILON * float(cov.diagonal().max())


def low_rank_factor(cov: Tensor) -> Tensor:
    """F of shape (rank, D) with FᵀF = Σ, by Cholesky with pivoting, which reveals the rank."""
    from scipy.linalg.lapack import dpstrf

    upper, pivots, rank, _ = dpstrf(cov.cpu().numpy(), tol=_noise_floor(cov))
    factor = cov.new_zeros(rank, len(cov))
    factor[:, torch.from_numpy(pivots - 1).long()] = (
        torch.from_numpy(upper[:rank]).triu().to(cov.device)
    )
    scale = float(cov.abs().max())
    if float((factor.T @ factor - cov).abs().max()) <= 1e-9 * max(scale, 1e-300):
        return factor
    return _nearest_factor(cov)


def _nearest_factor(cov: Tensor) -> Tensor:
    """F of shape (D, D) with FᵀF the positive semidefinite matrix nearest to Σ."""
    eigenvalues, vectors = torch.linalg.eigh(cov)
    if float(eigenvalues[0]) < -negative_tolerance(cov):
        raise MetricError(
            "covariance: expected a positive semidefinite matrix, got one with the eigenvalue "
            f"{float(eigenvalues[0]):.3g}; recompute it from the features in float64"
        )
    factor: Tensor = eigenvalues.clamp(min=0.0).sqrt()[:, None] * vectors.T
    return factor


def negative_tolerance(cov: Tensor) -> float:
    """How far below 0 rounding to float32 may put an eigenvalue of a (D, D) covariance.

    No eigenvalue moves by more than the Frobenius norm of what was changed (Weyl), and rounding
    changes each entry by half a float32 epsilon of it; four times that leaves room for sums.
    """
    return 2.0 * torch.finfo(torch.float32).eps * float(cov.norm())


def _centred_factor(values: Tensor) -> Tensor:
    """F with FᵀF = the unbiased covariance of (N, D) `values`, and min(N, D) rows."""
    centred: Tensor = (values - values.mean(dim=0)) / (len(values) - 1) ** 0.5
    if len(values) <= values.shape[1]:
        return centred
    factor: Tensor = torch.linalg.qr(centred, mode="r").R
    return factor
