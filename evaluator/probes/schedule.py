"""A scheduler's noise schedule as numbers: signal, noise and log-SNR of every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from evaluator.errors import ProbeError
from evaluator.probes.noise import (
    NoiseFamily,
    NoiseLevel,
    level_of_cumprod,
    level_of_sigma,
    noise_family,
)
from evaluator.probes.schemas import SCHEDULE_SCHEMA
from evaluator.probes.steps import place_of_call

USUAL_SPAN = (-10.0, 10.0)
"""Log-SNR that a schedule usually covers; families differ, so leaving it is only noted."""


def describe_schedule(scheduler: Any, *, num_steps: int) -> pa.Table:
    """Table of `SCHEDULE_SCHEMA`: one row for each step of a run of `num_steps` steps.

    `alpha` and `sigma` are a and b of x_t = a·x0 + b·ε, `log_snr` is 2 ln(a/b), at the step's
    first model evaluation; `train_log_snr` is the training grid's at the same timestep, null where
    the scheduler has no such grid. The scheduler itself stays as it is.
    """
    scheduler, family = _fresh(scheduler, num_steps)
    timesteps = [float(timestep) for timestep in scheduler.timesteps]
    firsts = [call for call in range(len(timesteps)) if place_of_call(scheduler, call).first]
    if family is NoiseFamily.VP:
        cumprod = scheduler.alphas_cumprod
        levels = [level_of_cumprod(float(cumprod[int(timesteps[call])])) for call in firsts]
    else:
        levels = [level_of_sigma(family, float(scheduler.sigmas[call])) for call in firsts]
    times = [timesteps[call] for call in firsts]
    return _table(times, levels, _training_log_snr(scheduler, times))


def training_schedule(scheduler: Any) -> pa.Table:
    """Table of `SCHEDULE_SCHEMA` over the timesteps that the model was trained on.

    ProbeError for schedulers without such a grid (EDM trains on continuous noise levels).
    """
    family = noise_family(scheduler)
    num_timesteps = int(scheduler.config.get("num_train_timesteps", 0))
    if hasattr(scheduler, "alphas_cumprod"):
        levels = [level_of_cumprod(float(value)) for value in scheduler.alphas_cumprod]
        times = [float(timestep) for timestep in range(len(levels))]
    elif family is NoiseFamily.FLOW:
        # Flow matching trains on σ = t / T; what `shift` does is the sampler's choice.
        times = [float(timestep) for timestep in range(1, num_timesteps + 1)]
        levels = [level_of_sigma(family, timestep / num_timesteps) for timestep in times]
    else:
        raise ProbeError(
            f"Expected a scheduler with training timesteps; {type(scheduler).__name__} has none. "
            "Use describe_schedule(scheduler, num_steps=…) for the steps of its sampler."
        )
    return _table(times, levels, [level.log_snr for level in levels])


def schedule_warnings(scheduler: Any, *, num_steps: int) -> tuple[str, ...]:
    """What is suspicious about the schedule, one sentence each; empty if nothing is."""
    table = describe_schedule(scheduler, num_steps=num_steps)
    config = scheduler.config
    log_snr = table.column("log_snr").to_numpy()
    warnings = []
    falling = [int(i) for i in range(1, len(log_snr)) if log_snr[i] < log_snr[i - 1]]
    if falling:
        warnings.append(
            f"The signal-to-noise ratio falls at steps {falling}; every step should keep or raise "
            "it. Check the timesteps or sigmas of the scheduler."
        )
    spacing = config.get("timestep_spacing")
    if config.get("rescale_betas_zero_snr") and spacing != "trailing":
        warnings.append(
            "rescale_betas_zero_snr is on but timestep_spacing is "
            f"{spacing!r}: sampling never starts at the noise level that was rescaled to zero "
            "signal. Set timestep_spacing to 'trailing' (Lin et al. 2023, section 3.3)."
        )
    if log_snr[0] > USUAL_SPAN[0] or log_snr[-1] < USUAL_SPAN[1]:
        warnings.append(
            f"Note: log-SNR runs from {log_snr[0]:.2f} to {log_snr[-1]:.2f} and does not reach "
            f"from {USUAL_SPAN[0]:.0f} (nearly pure noise) to {USUAL_SPAN[1]:.0f} (nearly clean). "
            f"Many {noise_family(scheduler).value} schedules are like that; compare it with the "
            "range that the model was trained on (train_log_snr)."
        )
    return tuple(warnings)


def _fresh(scheduler: Any, num_steps: int) -> tuple[Any, NoiseFamily]:
    """A copy with `num_steps` set, for set_timesteps changes its scheduler; and its family."""
    family = noise_family(scheduler)
    copy = type(scheduler).from_config(scheduler.config)
    try:
        copy.set_timesteps(num_steps)
    except ValueError as error:
        raise ProbeError(
            f"Expected a schedule that {num_steps} steps determine; {type(scheduler).__name__} "
            f"refuses: {error}. Turn dynamic shifting off (use_dynamic_shifting=False), or choose "
            "another number of steps."
        ) from error
    return copy, family


def _training_log_snr(scheduler: Any, times: Sequence[float]) -> list[float] | None:
    """Log-SNR of the training grid at `times`, interpolated; None where there is no grid."""
    if not hasattr(scheduler, "alphas_cumprod"):
        if not hasattr(scheduler, "precondition_outputs"):
            num_timesteps = float(scheduler.config.get("num_train_timesteps", 1000))
            return [level_of_sigma(NoiseFamily.FLOW, t / num_timesteps).log_snr for t in times]
        return None
    cumprod = scheduler.alphas_cumprod.double().numpy()
    with np.errstate(divide="ignore"):
        grid = np.log(cumprod) - np.log1p(-cumprod)
    whole = np.clip(np.floor(times), 0, len(grid) - 1).astype(int)
    result = grid[whole]
    between = np.array(times) != whole
    interpolated = np.interp(times, np.arange(len(grid)), grid)
    result[between] = interpolated[between]
    return [float(value) for value in result]


def _table(
    times: Sequence[float], levels: Sequence[NoiseLevel], train_log_snr: Sequence[float] | None
) -> pa.Table:
    trained = [math.nan] * len(times) if train_log_snr is None else list(train_log_snr)
    columns = [
        pa.array(range(len(times)), pa.int32()),
        pa.array(times, pa.float64()),
        pa.array([level.alpha for level in levels], pa.float64()),
        pa.array([level.sigma for level in levels], pa.float64()),
        pa.array([level.log_snr for level in levels], pa.float64()),
        pa.array(np.array(trained), pa.float64(), from_pandas=True),
    ]
    return pa.table(columns, SCHEDULE_SCHEMA)
