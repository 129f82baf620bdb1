"""Moments of the latents, and of what the model predicts from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor


class LatentTables(NamedTuple):
    """Statistics of S steps of B samples, on the CPU, float64; NaN where undefined."""

    scalars: Tensor
    """(16, S, B), in the order of `LATENT_STATISTICS`."""
    channel_mean: Tensor
    """(S, B, C)."""
    channel_std: Tensor
    """(S, B, C)."""
    nonfinite: Tensor
    """(S, B) int: values of x_t and of the model's output that are NaN or infinite."""


class Moments(NamedTuple):
    """Of each row's values; the divisor of the variance is their number."""

    mean: Tensor
    std: Tensor
    kurtosis: Tensor
    """Excess: 0 for a normal distribution, −2 for two equal points."""


def moments(values: Tensor) -> Moments:
    """(…, d) → three of (…). The kurtosis of constant values is NaN."""
    mean = values.mean(dim=-1)
    squares = (values - mean.unsqueeze(-1)).square()
    variance = squares.mean(dim=-1)
    kurtosis = squares.square().mean(dim=-1) / variance.square() - 3
    return Moments(mean, variance.sqrt(), kurtosis)


def lilliefors(values: Tensor) -> Tensor:
    """(…, d) → (…): how far the values are from normal, whatever their mean and scale.

    Lilliefors (1967): the largest distance between the distribution of the values, standardised
    by their own mean and standard deviation, and the normal one. From 0; about 0.65/√d for normal
    values, more than 0.9/√d for one normal sample in twenty. NaN for constant values. Neighbours
    in an image are not independent, so it is reported as a distance, not as a test.
    """
    of_all = moments(values)
    standard = (values - of_all.mean.unsqueeze(-1)) / of_all.std.unsqueeze(-1)
    normal = torch.special.ndtr(standard.sort(dim=-1).values)
    steps = torch.arange(values.shape[-1] + 1, dtype=values.dtype, device=values.device)
    share = steps / values.shape[-1]
    above, below = share[1:] - normal, normal - share[:-1]
    return torch.maximum(above.amax(dim=-1), below.amax(dim=-1))


def latent_statistics(
    latents: Tensor,
    previous: Tensor,
    model_output: Tensor,
    x0: Tensor,
    noise: Tensor,
    guidance_norm: Tensor,
    *,
    alpha: Tensor,
    sigma: Tensor,
) -> LatentTables:
    """(S, B, C, …) or (S, B, positions, C) each, and guidance_norm (S, B).

    `previous` holds the latents of the step before, NaN if there was none. d is the number of
    values of a sample, a and b are `alpha` and `sigma`, which broadcast against the latents.

    mean, std, min, max, kurtosis   of x_t
    norm              ‖x_t‖
    norm_ratio        ‖x_t‖ / √(a² E‖x0‖² + b² d), with E‖x0‖² = d: exact for latents
                      scaled to unit variance; pixels in [−1, 1] end below 1
    cosine_previous   cosine between x_t and the latents of the step before
    x0_mean, x0_std, x0_kurtosis      of the predicted x0, unclipped
    eps_mean, eps_std, eps_kurtosis   of the predicted noise: 0, 1, 0 for the right one
    eps_normality     Lilliefors' statistic of the predicted noise, 0 if it is normal
    guidance_norm     ‖c − u‖ / √d, conditional minus unconditional output of the model
    """
    x, last, predicted_x0, predicted_noise = (
        tensor.flatten(2) for tensor in (latents, previous, x0, noise)
    )
    num_values = x.shape[-1]
    # One level a step: whatever it broadcasts over, its first value says it.
    scale = (alpha.square() + sigma.square()).sqrt().flatten(1)[:, :1]
    of_x, of_x0, of_noise = moments(x), moments(predicted_x0), moments(predicted_noise)
    norm = x.norm(dim=-1)
    cosine = (x * last).sum(dim=-1) / (norm * last.norm(dim=-1))
    scalars = torch.stack(
        [
            *(of_x.mean, of_x.std, x.amin(dim=-1), x.amax(dim=-1), of_x.kurtosis),
            *(norm, norm / (math.sqrt(num_values) * scale), cosine),
            *(of_x0.mean, of_x0.std, of_x0.kurtosis),
            *(of_noise.mean, of_noise.std, of_noise.kurtosis, lilliefors(predicted_noise)),
            guidance_norm,
        ]
    )
    # Packed latents (…, positions, channels) have their channels last.
    by_channel = latents.transpose(2, 3) if latents.ndim == 4 else latents.flatten(3)
    of_channels = moments(by_channel)
    broken = (~torch.isfinite(x)).sum(-1) + (~torch.isfinite(model_output.flatten(2))).sum(-1)
    tables = (scalars, of_channels.mean, of_channels.std, broken)
    return LatentTables(*(table.cpu() for table in tables))
