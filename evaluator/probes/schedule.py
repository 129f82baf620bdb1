"""A scheduler's noise schedule as numbers: signal, noise, ᾱ, β and log-SNR of every step.

The columns mean the same for every family, so that schedules can be compared: ᾱ is a²/(a² + b²),
the share of signal in the variance of x_t = a·x0 + b·ε, and β is 1 − ᾱ/ᾱ', where ᾱ' belongs to
the neighbour with less noise (to the clean image for the last). For a variance-preserving
schedule these are the usual ᾱ and β (Ho et al. 2020, section 2).
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evaluator.errors import ProbeError
from evaluator.probes.noise import (
    NoiseFamily,
    NoiseLevel,
    family_by_attributes,
    level_of_cumprod,
    level_of_sigma,
)
from evaluator.probes.schemas import SCHEDULE_SCHEMA
from evaluator.probes.steps import place_of_call


def describe_schedule(
    scheduler: Any,
    *,
    num_steps: int | None,
    mu: float | None = None,
    sigmas: Sequence[float] | None = None,
) -> pa.Table:
    """Table of `SCHEDULE_SCHEMA`: one row for each step of a run of `num_steps` steps.

    Without `num_steps`, of the steps that the scheduler was last set to: after a pipeline has run,
    exactly those of its run.

    `alpha` and `sigma` are a and b of x_t = a·x0 + b·ε, `log_snr` is 2 ln(a/b), at the step's
    first model evaluation; `train_log_snr` is the training grid's at the same timestep, null where
    the scheduler has no such grid. `mu` is the dynamic shift that a pipeline derives from the
    image's size, `sigmas` the noise levels that some pipelines give their scheduler instead of a
    number of steps (`pipeline_sigmas`). The scheduler itself stays as it is.
    """
    family = schedule_family(scheduler)
    if num_steps is not None:
        scheduler = with_timesteps(scheduler, num_steps, mu=mu, sigmas=sigmas)
    elif getattr(scheduler, "num_inference_steps", None) is None:
        raise ProbeError(
            f"Expected a scheduler that has run; got {type(scheduler).__name__} without timesteps. "
            "Say num_steps=…, or run its pipeline first."
        )
    timesteps = [float(timestep) for timestep in scheduler.timesteps]
    if scheduler.config.get("prediction_type") == "trigflow":
        timesteps = timesteps[:-1]  # the last is where the last step ends
    firsts = [call for call in range(len(timesteps)) if place_of_call(scheduler, call).first]
    levels = [_level(scheduler, family, call, timesteps[call]) for call in firsts]
    times = [timesteps[call] for call in firsts]
    return _table(times, levels, _training_log_snr(scheduler, family, times))


def training_schedule(scheduler: Any) -> pa.Table:
    """Table of `SCHEDULE_SCHEMA` over the timesteps that the model was trained on.

    ProbeError for schedulers without such a grid (EDM trains on continuous noise levels).
    """
    family = schedule_family(scheduler)
    num_timesteps = int(scheduler.config.get("num_train_timesteps") or 0)
    if family is NoiseFamily.FLOW and num_timesteps:
        # Flow matching trains on σ = t / T; what `shift` does is the sampler's choice, and
        # betas that a solver on flow sigmas (Sana's) was built with mean nothing.
        times = [float(timestep) for timestep in range(1, num_timesteps + 1)]
        levels = [level_of_sigma(family, timestep / num_timesteps) for timestep in times]
        return _table(times, levels, [level.log_snr for level in levels])
    if hasattr(scheduler, "alphas_cumprod"):
        levels = [level_of_cumprod(value) for value in scheduler.alphas_cumprod.tolist()]
        times = [float(timestep) for timestep in range(len(levels))]
        betas = scheduler.betas.double().tolist()
        return _table(times, levels, [level.log_snr for level in levels], betas=betas)
    raise ProbeError(
        f"Expected a scheduler with training timesteps; {type(scheduler).__name__} has none. "
        "Use describe_schedule(scheduler, num_steps=…) for the steps of its sampler."
    )


def schedule_family(scheduler: Any) -> NoiseFamily:
    """The family of a scheduler's curves; ProbeError by name for those without noise levels.

    More schedulers have known curves than have predictions that can be checked (`noise_family`).
    """
    family = family_by_attributes(scheduler)
    if family is None:
        raise ProbeError(
            "Expected a scheduler that mixes an image with normal noise; got "
            f"{type(scheduler).__name__}, whose attributes name no noise level. Discrete and "
            "token schedulers have no such schedule; choose another one."
        )
    return family


def posterior_variance(betas: NDArray[np.float64]) -> NDArray[np.float64]:
    """β̃_t = β_t (1 − ᾱ_{t−1}) / (1 − ᾱ_t) of a training grid: (T,) → (T,).

    The smallest variance of the reverse step; β_t is the largest (Ho et al. 2020, section 3.2).
    Models with a learned range choose between the two (Nichol & Dhariwal 2021, eq. 15).
    """
    cumprod = np.cumprod(1 - betas)
    before = np.concatenate([[1.0], cumprod[:-1]])
    with np.errstate(invalid="ignore", divide="ignore"):
        variance: NDArray[np.float64] = betas * (1 - before) / (1 - cumprod)
    return variance


def with_timesteps(
    scheduler: Any, num_steps: int, *, mu: float | None, sigmas: Sequence[float] | None
) -> Any:
    """A copy on which `set_timesteps` was called; ProbeError where that needs something else."""
    if num_steps < 1:
        raise ProbeError(f"num_steps: expected 1 or more, got {num_steps}. Take at least one step.")
    fresh = copy.deepcopy(scheduler)
    known = inspect.signature(fresh.set_timesteps).parameters
    given: dict[str, Any] = {"num_inference_steps": num_steps}
    if sigmas is not None and "sigmas" in known:
        given["sigmas"] = list(sigmas)
    if mu is not None and "mu" in known:
        given["mu"] = mu
    if "max_timesteps" in known:  # SCM has no start of its own: that of its pipelines
        given["max_timesteps"] = math.pi / 2
        if num_steps != 2:
            given["intermediate_timesteps"] = None
    try:
        fresh.set_timesteps(**given)
    except (ValueError, TypeError, KeyError, AssertionError, NotImplementedError) as error:
        raise ProbeError(
            f"Expected a schedule that {num_steps} steps determine; {type(scheduler).__name__} "
            f"refuses: {str(error).rstrip('. ') or type(error).__name__}. {_remedy(fresh)}"
        ) from error
    known_levels = getattr(fresh, "alphas_cumprod", None)
    if known_levels is not None and float(max(fresh.timesteps)) > len(known_levels) - 1:
        raise ProbeError(
            f"Expected noise levels for all timesteps up to {float(max(fresh.timesteps)):g}; "
            f"{type(scheduler).__name__} has {len(known_levels)} of them. Give as many "
            "trained_betas as num_train_timesteps."
        )
    return fresh


def needs_mu(scheduler: Any) -> bool:
    """Whether the steps depend on the size of the image, by way of a shift `mu`."""
    return bool(scheduler.config.get("use_dynamic_shifting"))


def _remedy(scheduler: Any) -> str:
    if needs_mu(scheduler):
        return (
            "Give the shift of your image size (mu=…), or turn dynamic shifting off "
            "(use_dynamic_shifting=False)."
        )
    return "Choose another number of steps, or other settings."


def _level(scheduler: Any, family: NoiseFamily, call: int, timestep: float) -> NoiseLevel:
    """(a, b) at the `call`-th model evaluation."""
    if family is NoiseFamily.TRIG:
        turns = scheduler.config.get("prediction_type") != "trigflow"
        angle = timestep * math.pi / 2 if turns else timestep
        return NoiseLevel(max(0.0, math.cos(angle)), math.sin(angle))
    if family is NoiseFamily.VP:
        if hasattr(scheduler, "alphas_cumprod"):
            return level_of_cumprod(float(scheduler.alphas_cumprod[int(timestep)]))
        return level_of_cumprod(_continuous_cumprod(scheduler, timestep))
    if type(scheduler).__name__ == "ScoreSdeVeScheduler":
        # Its `sigmas` are for training; a step is at σ(t) of continuous time (Song et al. 2021).
        low, high = scheduler.config.sigma_min, scheduler.config.sigma_max
        return level_of_sigma(family, low * (high / low) ** timestep)
    sigma = float(scheduler.sigmas[call])
    inverted = family is NoiseFamily.FLOW and scheduler.config.get("invert_sigmas")
    return level_of_sigma(family, 1 - sigma if inverted else sigma)


def _continuous_cumprod(scheduler: Any, timestep: float) -> float:
    import torch

    return float(scheduler._alpha_cumprod(torch.tensor([timestep]), "cpu"))


def _training_log_snr(
    scheduler: Any, family: NoiseFamily, times: Sequence[float]
) -> list[float] | None:
    """Log-SNR of the training grid at `times`, interpolated; None where there is no grid."""
    num_timesteps = float(scheduler.config.get("num_train_timesteps") or 0)
    if family is NoiseFamily.FLOW and num_timesteps:
        return [level_of_sigma(family, t / num_timesteps).log_snr for t in times]
    if not hasattr(scheduler, "alphas_cumprod"):
        return None
    cumprod = scheduler.alphas_cumprod.double().cpu().numpy()
    with np.errstate(divide="ignore"):
        grid = np.log(cumprod) - np.log1p(-cumprod)
    whole = np.clip(np.floor(times), 0, len(grid) - 1).astype(int)
    result = grid[whole]
    between = np.array(times) != whole
    interpolated = np.interp(times, np.arange(len(grid)), grid)
    result[between] = interpolated[between]
    return [float(value) for value in result]


def _table(
    times: Sequence[float],
    levels: Sequence[NoiseLevel],
    train_log_snr: Sequence[float] | None,
    *,
    betas: Sequence[float] | None = None,
) -> pa.Table:
    trained = [math.nan] * len(times) if train_log_snr is None else list(train_log_snr)
    alpha = np.array([level.alpha for level in levels])
    sigma = np.array([level.sigma for level in levels])
    cumprod = alpha**2 / (alpha**2 + sigma**2)
    columns = [
        pa.array(range(len(times)), pa.int32()),
        pa.array(times, pa.float64()),
        pa.array(alpha, pa.float64()),
        pa.array(sigma, pa.float64()),
        pa.array(cumprod, pa.float64()),
        pa.array(_betas(cumprod) if betas is None else betas, pa.float64()),
        pa.array([level.log_snr for level in levels], pa.float64()),
        pa.array(np.array(trained), pa.float64(), from_pandas=True),
    ]
    return pa.table(columns, SCHEDULE_SCHEMA)


def _betas(cumprod: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 − ᾱ/ᾱ' of each row against its neighbour with less noise; 0 where neither has signal."""
    if len(cumprod) and cumprod[0] >= cumprod[-1]:  # from the image to the noise
        cleaner = np.concatenate([[1.0], cumprod[:-1]])
    else:
        cleaner = np.concatenate([cumprod[1:], [1.0]])
    result: NDArray[np.float64] = 1 - np.divide(
        cumprod, cleaner, out=np.ones_like(cumprod), where=cleaner > 0
    )
    return result
