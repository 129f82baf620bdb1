"""What an autoencoder loses, and whether its latents have the scale that the denoiser expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from evaluator.probes.latent_space import LatentSpace

if TYPE_CHECKING:
    from torch import Tensor

STD_RANGE = (1 / 1.5, 1.5)
"""Standard deviation of scaled latents that raises no warning: published models lie within."""
MEAN_RANGE = 0.5
"""Largest mean of scaled latents, in their own standard deviations, that raises none."""


class Reconstruction(NamedTuple):
    """How far decoded images are from their originals, (N,) float64 each."""

    mse: Tensor
    """Mean square difference of values in [0, 1]."""
    psnr: Tensor
    """10·log10(1/MSE) in decibels; infinite for a perfect image."""
    largest: Tensor
    """Largest difference of a value, in grey levels of 255."""


class LatentScale(NamedTuple):
    """Moments of scaled latents over all images."""

    mean: float
    std: float
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    fitting_factor: float
    """The scaling factor that would give these images a standard deviation of 1."""


def reconstruction_errors(images: Tensor, decoded: Tensor) -> Reconstruction:
    """Compare (N, 3, H, W) uint8 images, each with its own."""
    difference = (images.double() - decoded.double()).flatten(1)
    mse = (difference / 255).square().mean(dim=1)
    return Reconstruction(mse, -10 * mse.log10(), difference.abs().amax(dim=1))


def latent_scale(latents: Tensor, space: LatentSpace) -> LatentScale:
    """Moments of scaled latents (N, C, …), in float64."""
    import torch

    values = latents.double()
    channels = values.transpose(0, 1).flatten(1)
    std = float(values.std(correction=0))
    fitting = space.scaling_factor / std if std > 0 else float("nan")
    variance, mean = torch.var_mean(channels, dim=1, correction=0)
    return LatentScale(
        float(values.mean()),
        std,
        tuple(mean.tolist()),
        tuple(variance.sqrt().tolist()),
        fitting,
    )


def scale_warnings(scale: LatentScale, space: LatentSpace) -> tuple[str, ...]:
    """What is suspicious about the scale of the latents, one sentence each."""
    warnings = []
    if not STD_RANGE[0] <= scale.std <= STD_RANGE[1]:
        factor = (
            f"scaling_factor is {space.scaling_factor:g}, these images ask for "
            f"{scale.fitting_factor:.3g}. Check vae.config.scaling_factor"
        )
        if space.channel_std is not None:
            factor = (
                f"these images ask for latents_std {scale.std:.3g} times as large. Check "
                "vae.config.latents_std"
            )
        warnings.append(
            f"the scaled latents have a standard deviation of {scale.std:.3g}, expected about 1: "
            f"{factor}, and that the denoiser was trained with it."
        )
    if abs(scale.mean) > MEAN_RANGE * scale.std:
        raw = scale.mean / space.scaling_factor + space.shift_factor
        ask = (
            "check latents_mean"
            if space.channel_mean is not None
            else f"shift_factor is {space.shift_factor:g}, these images ask for {raw:.3g}"
        )
        warnings.append(
            f"the scaled latents have a mean of {scale.mean:.3g}, expected about 0: {ask}."
        )
    return tuple(warnings)
