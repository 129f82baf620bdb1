"""How well a model tells noise from image: its prediction against the noise that was put in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.probes.noise import NoiseLevel, noise_family, predict
from evaluator.probes.steering import predictions_along

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Denoised(NamedTuple):
    """One noise level: what the model made of N images."""

    timestep: float
    level: NoiseLevel
    noise_mse: Tensor
    """(N,) float64: mean square of (predicted − injected noise), whose variance is 1."""
    x0_mse: Tensor
    """(N,) float64: mean square of (predicted − true x0), in the model's own space."""
    x0: Tensor
    """(N, …) the x0 that the model predicts in one step."""


def noised(x0: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
    """The forward process: x_t = a·x0 + b·ε."""
    return level.alpha * x0 + level.sigma * noise


def denoise_along(
    pipeline: Any,
    generate: Callable[[], object],
    x0: Tensor,
    noise: Tensor,
    *,
    timesteps: Sequence[float] | None = None,
) -> list[Denoised]:
    """Noise images to each level of a run, and compare what the model predicts.

    `x0` and `noise` are (N, …) as the scheduler sees latents, `generate` calls the pipeline once
    for N samples. Whatever the model predicts (ε, v, x0, a flow's velocity) is converted to both.
    A model without any knowledge, which predicts ε = 0, has a noise error of 1.
    """
    import torch

    family = noise_family(pipeline.scheduler)
    along = predictions_along(
        pipeline, generate, lambda level: noised(x0, noise, level), timesteps=timesteps
    )
    found = []
    for prediction in along:
        # what the denoiser was given was rounded to its type; what is compared is not
        exact = torch.float32 if x0.device.type == "mps" else torch.float64
        level, sample = prediction.level, prediction.latents.to(exact)
        guess = predict(
            pipeline.scheduler,
            family,
            sample,
            prediction.output.to(sample),
            alpha=sample.new_tensor(level.alpha),
            sigma=sample.new_tensor(level.sigma),
        )
        found.append(
            Denoised(
                prediction.timestep,
                level,
                _mean_square(guess.noise - noise.to(sample)),
                _mean_square(guess.x0 - x0.to(sample)),
                guess.x0,
            )
        )
    return found


def _mean_square(values: Tensor) -> Tensor:
    """(N, …) → (N,)."""
    mean: Tensor = values.flatten(1).square().mean(dim=1).cpu()
    return mean
