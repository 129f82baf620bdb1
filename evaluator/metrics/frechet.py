"""Fréchet distance of two Gaussians: ‖Δμ‖² + Tr Σ₁ + Tr Σ₂ − 2 Tr (Σ₁Σ₂)^½.

Heusel et al. 2017, eq. 6 (Dowson and Landau 1982). "FID" is this distance on Inception features.
The trace of the root is never taken of a nonsymmetric product, so nothing complex can appear:

- both covariances of full rank: Σ₁ = LLᵀ, and the roots of the eigenvalues of LᵀΣ₂L;
- otherwise, or where those eigenvalues are too spread for their roots to be exact: Σᵢ = FᵢᵀFᵢ
  with as many rows as the rank, and the singular values of F₁F₂ᵀ.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evaluator.errors import MetricError
from evaluator.metrics.arrays import EPSILON, ArrayLike, as_float64, as_pair
from evaluator.metrics.moments import Moments

ACCURACY = 1e-10
"""Largest error that the eigenvalue path may have in the worst case, relative to Tr Σ₁ + Tr Σ₂.

The errors met with are smaller by five digits; the singular values take 2.4 times as long.
"""


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
    return _assemble(
        means[0] - means[1],
        float(covs[0].trace() + covs[1].trace()),
        _trace_of_root(*covs, accuracy),
    )


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
    traces = sum(float(factor.square().sum()) for factor in factors)
    root = float(torch.linalg.svdvals(factors[0] @ factors[1].T).sum())
    return _assemble(first.mean(dim=0) - second.mean(dim=0), traces, root)


def _assemble(difference: Tensor, traces: float, root: float) -> float:
    """The distance from its parts; rounding may leave it a hair below 0."""
    value = float(difference @ difference) + traces - 2.0 * root
    assert value >= -1e-5 * max(traces, 1e-300), "the root's trace cannot exceed the traces' mean"
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


def _trace_of_root(cov_a: Tensor, cov_b: Tensor, accuracy: float) -> float:
    """Tr (Σ₁Σ₂)^½ of two positive semidefinite matrices."""
    lower_a, lower_b = _cholesky(cov_a), _cholesky(cov_b)
    if lower_a is not None and lower_b is not None:
        eigenvalues = torch.linalg.eigvalsh(lower_a.T @ cov_b @ lower_a)
        # an eigenvalue w is known to about eps·w_max, its root to that over 2·sqrt(w)
        doubt = 8.0 * EPSILON * float(eigenvalues[-1])
        roots = eigenvalues.clamp(min=doubt).sqrt()
        if float((0.5 * doubt / roots).sum()) <= accuracy * float(cov_a.trace() + cov_b.trace()):
            return float(roots.sum())
    factor_a = lower_a.T if lower_a is not None else _low_rank_factor(cov_a)
    factor_b = lower_b.T if lower_b is not None else _low_rank_factor(cov_b)
    return float(torch.linalg.svdvals(factor_a @ factor_b.T).sum())


def _cholesky(cov: Tensor) -> Tensor | None:
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


def _low_rank_factor(cov: Tensor) -> Tensor:
    """F of shape (rank, D) with FᵀF = Σ, by Cholesky with pivoting, which reveals the rank."""
    from scipy.linalg.lapack import dpstrf

    upper, pivots, rank, _ = dpstrf(cov.cpu().numpy(), tol=_noise_floor(cov))
    factor = cov.new_zeros(rank, len(cov))
    factor[:, torch.from_numpy(pivots - 1).long()] = (
        torch.from_numpy(upper[:rank]).triu().to(cov.device)
    )
    scale = float(cov.abs().max())
    if float((factor.T @ factor - cov).abs().max()) > 1e-9 * max(scale, 1e-300):
        raise MetricError(
            "covariance: expected a positive semidefinite matrix, got one with negative "
            "eigenvalues; recompute it from the features in float64"
        )
    return factor


def _centred_factor(values: Tensor) -> Tensor:
    """F with FᵀF = the unbiased covariance of (N, D) `values`, and min(N, D) rows."""
    centred: Tensor = (values - values.mean(dim=0)) / (len(values) - 1) ** 0.5
    if len(values) <= values.shape[1]:
        return centred
    factor: Tensor = torch.linalg.qr(centred, mode="r").R
    return factor
