"""Vendi score: how many different samples there are, as the entropy of their similarities.

Friedman and Dieng 2023, definition 3.1: exp of the Shannon entropy of the eigenvalues of K / n.
Pasarkar and Dieng 2024, eq. 3: the same with Rényi's entropy of order q; a small q gives rare
samples more weight, q = ∞ gives 1 / the largest eigenvalue. K is the cosine kernel here.

The eigenvalues of X Xᵀ / n (n × n) and XᵀX / n (D × D) are the same apart from zeros, so the
smaller matrix serves. Deviation: eigenvalues below rounding noise count as 0, and the others are
made to sum to 1; an order below 1 would otherwise turn noise into diversity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evaluator.metrics.arrays import EPSILON, ArrayLike, as_directions, as_matrix
from evaluator.metrics.options import entropy_order


def vendi_score(features: ArrayLike, *, q: float = 1.0) -> float:
    """The effective number of different samples among (N, D) features, from 1 to min(N, D).

    `q` above 0, infinity included. Features without length have no cosine and are refused.
    """
    order = float(entropy_order("q", q))
    return score_of_directions(as_directions(as_matrix(features, "features"), "features"), order)


def score_of_directions(directions: Tensor, q: float) -> float:
    """The score of (N, D) float64 rows of length 1."""
    n, dim = directions.shape
    small = directions @ directions.T if n <= dim else directions.T @ directions
    return score_of_gram(small / n, q)


def score_of_gram(gram: Tensor, q: float) -> float:
    """Exp of the Rényi entropy of order `q` of the eigenvalues of a matrix of trace 1."""
    eigenvalues = torch.linalg.eigvalsh(gram)
    kept = eigenvalues[eigenvalues > 4.0 * len(gram) * EPSILON * float(eigenvalues[-1])]
    shares = kept / kept.sum()
    logs = shares.log()
    if math.isinf(q):
        entropy = -logs.max()
    elif q == 1.0:
        entropy = -(shares * logs).sum()
    elif abs(q - 1.0) < 0.5:
        # log Σ λ^q as log1p of a small number: exact where both q - 1 and it go to 0
        entropy = (shares * (logs * (q - 1.0)).expm1()).sum().log1p() / (1.0 - q)
    else:
        entropy = (logs * q).logsumexp(dim=0) / (1.0 - q)
    return float(entropy.exp())
