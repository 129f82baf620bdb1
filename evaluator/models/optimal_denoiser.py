"""The optimal denoiser of a training set: what a model that learned nothing else would answer.

For data that are exactly the N training images y_i, and x = a·y + b·n with n ~ N(0, I), the
least-squares estimate of y is their mean, weighted by how well each explains x:

    D(x) = Σ_i w_i y_i,    w = softmax_i(−‖x − a·y_i‖² / 2b²)

(Karras et al. 2022, eq. 57, with a = 1 and b = σ). It tends to the nearest training image for b → 0
and to the mean of all for b → ∞, and what it samples are training images: the end of memorization
against which a trained model can be held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 4096
"""Training images that are in float64 at a time."""


class Level(NamedTuple):
    """a and b of x = a·y + b·n, each () or (B,), b above 0."""

    alpha: Tensor
    sigma: Tensor


def optimal_denoiser(
    noisy: Tensor,
    data: Tensor,
    *,
    sigma: Tensor | float,
    alpha: Tensor | float = 1.0,
    chunk: int = CHUNK,
) -> Tensor:
    """E[y | x] of each x: (B, …) float => (B, …) float64, differentiable in `noisy`.

    `data` is (N, …), floats or uint8 from 0 to 255, which stands for −1 to 1. `alpha` and `sigma`
    are numbers, or (B,). Memory beyond the inputs is bounded by `chunk` images: the softmax is
    carried from chunk to chunk with its maximum.
    """
    x, level = _prepared(noisy, alpha, sigma)
    highest = x.new_full((len(x),), -torch.inf)
    total, mean = x.new_zeros(len(x)), torch.zeros_like(x)
    for images in _pieces(data, x, chunk):
        logits = _logits(x, images, level)
        higher = torch.maximum(highest, logits.amax(1))
        fade, weights = (highest - higher).exp(), (logits - higher[:, None]).exp()
        total = total * fade + weights.sum(1)
        mean = mean * fade[:, None] + weights @ images
        highest = higher
    return (mean / total[:, None]).reshape(noisy.shape)


def posterior_weights(
    noisy: Tensor, data: Tensor, *, sigma: Tensor | float, alpha: Tensor | float = 1.0
) -> Tensor:
    """Weights w of each x: (B, …) and (N, …) => (B, N) float64, rows that sum to 1."""
    x, level = _prepared(noisy, alpha, sigma)
    logits = [_logits(x, images, level) for images in _pieces(data, x, CHUNK)]
    return torch.cat(logits, dim=1).softmax(1)


def optimal_jacobian(noisy: Tensor, data: Tensor, *, sigma: float, alpha: float = 1.0) -> Tensor:
    """∂D/∂x at one x in closed form: (…) of D numbers => (D, D) float64, symmetric.

    a/b² times the covariance of y given x: with a = 1, the posterior covariance over σ².
    """
    weights = posterior_weights(noisy[None], data, sigma=sigma, alpha=alpha)[0]
    images = torch.cat(list(_pieces(data, weights, CHUNK)))
    centred = images - weights @ images
    return alpha / sigma**2 * (centred.T * weights) @ centred


def _prepared(noisy: Tensor, alpha: Tensor | float, sigma: Tensor | float) -> tuple[Tensor, Level]:
    """Noisy images as (B, D), and a and b, all in the widest floats that the device has."""
    exact = torch.float32 if noisy.device.type == "mps" else torch.float64
    x = noisy.flatten(1).to(exact)
    a, b = (torch.as_tensor(v, dtype=exact, device=x.device) for v in (alpha, sigma))
    return x, Level(a, b)


def _pieces(data: Tensor, like: Tensor, chunk: int) -> Iterator[Tensor]:
    """Some (n, D) images at a time, as floats; a byte stands for −1 to 1."""
    for part in torch.split(data.flatten(1), chunk):
        images = part.to(like)
        yield images / 127.5 - 1 if data.dtype == torch.uint8 else images


def _logits(x: Tensor, images: Tensor, level: Level) -> Tensor:
    """(B, n): −‖x − a·y‖² / 2b² without the part that all images share.

    Nothing is divided by a, which is 0 where a schedule ends in pure noise.
    """
    a, b = (value.reshape(-1, 1) for value in level)
    return a * (x @ images.T - a * images.square().sum(1) / 2) / b.square()
