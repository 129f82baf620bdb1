"""What is suspicious about a noise schedule, said with its family in mind."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evaluator.errors import ProbeError
from evaluator.probes.noise import NoiseFamily
from evaluator.probes.schedule import (
    describe_schedule,
    needs_mu,
    schedule_family,
    training_schedule,
    with_timesteps,
)

USUAL_SPAN = (-5.0, 5.0)
"""Log-SNR that a model is usually trained on at least; falling short of it is only noted."""

PURE_NOISE = -10.0
"""Log-SNR below which latents are as good as pure noise: they hold less than 1 % of the image."""

START_TOLERANCE = 2.5
"""By how much log-SNR may start above what was trained. With 10 steps or more the usual spacings
stay within 1.8 of a linear schedule's end, as they leave out less than a tenth of the timesteps."""

MAX_FIRST_SIGNAL = 0.02
"""ᾱ of the first step above which pure noise is no fair stand-in for its latents: a seventh of
the amplitude is then signal that the model expects to see."""

SIGMA_TOLERANCE = 0.05
"""By how much `init_noise_sigma` may miss the first step's noise level: pipelines choose between
σ and √(σ² + 1), which differ by less than this from σ = 3.2 on."""


def schedule_warnings(
    scheduler: Any,
    *,
    num_steps: int | None,
    mu: float | None = None,
    sigmas: Sequence[float] | None = None,
) -> tuple[str, ...]:
    """What is suspicious about the schedule, one sentence each; empty if nothing is.

    Without `num_steps`, about the steps that the scheduler was last set to. Those that start with
    `Note:` are usual in some families and only worth knowing.
    """
    family = schedule_family(scheduler)
    steps = describe_schedule(scheduler, num_steps=num_steps, mu=mu, sigmas=sigmas)
    fresh = scheduler
    if num_steps is not None:
        fresh = with_timesteps(scheduler, num_steps, mu=mu, sigmas=sigmas)
    try:
        training = training_schedule(scheduler)
    except ProbeError:
        training = None
    return (
        *_order(scheduler, steps),
        *_range(steps, training),
        *_zero_snr(scheduler, steps, training),
        *_constant(steps, training),
        *_first_level(fresh, family, steps),
        *_start(scheduler, steps, training),
        *_span(steps, training),
    )


def _column(table: pa.Table, name: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = table.column(name).to_numpy()
    return values


def _runs_to_noise(scheduler: Any) -> bool:
    return "Inverse" in type(scheduler).__name__


def _order(scheduler: Any, steps: pa.Table) -> Iterator[str]:
    log_snr = _column(steps, "log_snr")
    wrong, verb, wanted = log_snr[1:] < log_snr[:-1], "falls", "raise"
    if _runs_to_noise(scheduler):
        wrong, verb, wanted = log_snr[1:] > log_snr[:-1], "rises", "lower"
    if wrong.any():
        at = [int(i) + 1 for i in np.flatnonzero(wrong)]
        yield (
            f"The signal-to-noise ratio {verb} at steps {at}; every step should keep or {wanted} "
            "it. Check the timesteps or sigmas of the scheduler."
        )


def _range(steps: pa.Table, training: pa.Table | None) -> Iterator[str]:
    for kind, table in (("sampling", steps), ("training", training)):
        if table is None:
            continue
        cumprod, beta = _column(table, "alpha_cumprod"), _column(table, "beta")
        if not (np.isfinite(cumprod).all() and cumprod.min() >= 0 and cumprod.max() <= 1):
            yield (
                f"The {kind} grid holds noise levels out of range: expected ᾱ between 0 and 1, "
                f"got {np.nanmin(cumprod):.4g} to {np.nanmax(cumprod):.4g}. Check its betas."
            )
        # Sampling steps may well keep the noise or, inverted, raise it: their order is checked.
        if kind == "training" and not (beta.min() >= 0 and beta.max() <= 1):
            yield (
                f"Expected training betas between 0 and 1, got {beta.min():.4g} to "
                f"{beta.max():.4g}: noise is taken away, or the signal turns over. Check "
                "beta_start, beta_end and trained_betas."
            )
        elif kind == "training" and (np.diff(cumprod) > 0).any() and cumprod[0] > cumprod[-1]:
            yield "The training grid's ᾱ rises somewhere; it should never. Check its betas."


def _zero_snr(scheduler: Any, steps: pa.Table, training: pa.Table | None) -> Iterator[str]:
    config = scheduler.config
    spacing = config.get("timestep_spacing")
    zero = training is not None and bool((_column(training, "log_snr") < -16).any())
    asked = bool(config.get("rescale_betas_zero_snr"))
    last = 0 if training is None else training.num_rows - 1
    starts_there = float(_column(steps, "timestep").max()) >= last
    if asked and spacing != "trailing" and starts_there:
        yield (
            f"Note: rescale_betas_zero_snr is on and timestep_spacing is {spacing!r}: sampling "
            "starts at zero signal, but its last step is spent where hardly any noise is left. "
            "'trailing' goes with it (Lin et al. 2023, section 3.3)."
        )
    elif asked and spacing != "trailing":
        yield (
            "rescale_betas_zero_snr is on but timestep_spacing is "
            f"{spacing!r}: sampling never starts at the noise level that was rescaled to zero "
            "signal. Set timestep_spacing to 'trailing' (Lin et al. 2023, section 3.3)."
        )
    if asked and zero and config.get("prediction_type") == "epsilon":
        yield (
            "The last training step has no signal, but prediction_type is 'epsilon': the noise "
            "alone says nothing about the image there. Set prediction_type to 'v_prediction' for "
            "a model that was trained so (Lin et al. 2023, section 3.2)."
        )


def _constant(steps: pa.Table, training: pa.Table | None) -> Iterator[str]:
    if training is not None and "beta" in training.column_names and training.num_rows > 2:
        beta = _column(training, "beta")
        if np.ptp(beta) <= 1e-7 * max(abs(float(beta.max())), 1e-12):
            yield (
                f"β is {beta[0]:.4g} at every training step: the schedule is constant. Check that "
                "beta_start and beta_end differ."
            )
    levels = _column(steps, "log_snr")
    same = int((levels[1:] == levels[:-1]).sum())
    if same:
        yield (
            f"{same} of {len(levels)} steps repeat the noise level of the step before and do "
            "nothing. Take fewer steps."
        )


def _first_level(scheduler: Any, family: NoiseFamily, steps: pa.Table) -> Iterator[str]:
    """What the initial noise must be, and whether that is what the first step expects."""
    if _runs_to_noise(scheduler):
        return
    alpha, sigma = float(steps["alpha"][0].as_py()), float(steps["sigma"][0].as_py())
    cumprod = float(steps["alpha_cumprod"][0].as_py())
    declared = getattr(scheduler, "init_noise_sigma", None)
    if declared is not None:
        declared = float(declared)
        wanted = (sigma, math.hypot(alpha, sigma))
        if abs(declared - 1) > 1e-6:
            yield (
                f"Note: init_noise_sigma is {declared:.5g}, not 1: the initial noise must be "
                "multiplied by it. Pipelines of diffusers do; a loop of one's own has to."
            )
        low, high = min(wanted) * (1 - SIGMA_TOLERANCE), max(wanted) * (1 + SIGMA_TOLERANCE)
        if not low <= declared <= high:
            yield (
                f"The initial noise has a standard deviation of {declared:.4g} "
                f"(init_noise_sigma), but latents of the first step have {wanted[1]:.4g}. Check "
                "sigma_max, timestep_spacing and the number of steps."
            )
    if cumprod > MAX_FIRST_SIGNAL:
        yield (
            f"Sampling starts at timestep {steps['timestep'][0].as_py():g}, whose latents hold "
            f"{100 * math.sqrt(cumprod):.0f} % of the image's amplitude; pure noise holds none. "
            "Take more steps, or set timestep_spacing to 'trailing' or 'linspace'."
        )


def _start(scheduler: Any, steps: pa.Table, training: pa.Table | None) -> Iterator[str]:
    """Whether sampling begins with about the noise that the model was trained on."""
    if training is None or _runs_to_noise(scheduler):
        return
    trained, sampled = (float(_column(table, "log_snr").min()) for table in (training, steps))
    cumprod = float(_column(steps, "alpha_cumprod").min())
    # Where the first step holds even more of the image, that is said already.
    if sampled - max(trained, PURE_NOISE) > START_TOLERANCE and cumprod <= MAX_FIRST_SIGNAL:
        yield (
            f"The model was trained down to log-SNR {trained:.2f}, but sampling starts at "
            f"{sampled:.2f}: it is given pure noise where it expects latents that hold "
            f"{100 * math.sqrt(cumprod):.2g} % of the image's amplitude. Set timestep_spacing to "
            "'trailing' or 'linspace', or take more steps."
        )


def _span(steps: pa.Table, training: pa.Table | None) -> Iterator[str]:
    """Which end of the trained range (without one, of the sampled) falls short."""
    log_snr = _column(steps if training is None else training, "log_snr")
    kind = "Sampled" if training is None else "Trained"
    least, most = float(log_snr.min()), float(log_snr.max())
    if least > USUAL_SPAN[0]:
        yield (
            f"Note: {kind} log-SNR begins at {least:.2f}, short of {USUAL_SPAN[0]:g}: the noisiest "
            f"level still holds {100 / math.sqrt(1 + math.exp(-least)):.0f} % of the image's "
            "amplitude."
        )
    if most < USUAL_SPAN[1]:
        yield (
            f"Note: {kind} log-SNR ends at {most:.2f}, short of {USUAL_SPAN[1]:g}: the cleanest "
            f"level still holds {100 / math.sqrt(1 + math.exp(most)):.0f} % noise."
        )


def shift_warning(scheduler: Any, mu: float | None) -> tuple[str, ...]:
    """What to know where the steps depend on the size of the image."""
    if mu is not None or not needs_mu(scheduler):
        return ()
    config = scheduler.config
    return (
        "Dynamic shifting is on and mu was not given: the steps depend on the size of the image. "
        f"Drawn for mu = {default_mu(scheduler):g}, that of {config.get('max_image_seq_len', 4096)}"
        f" latent positions; {config.get('base_image_seq_len', 256)} positions have "
        f"{config.get('base_shift', 0.5):g}. Give mu=… for another size.",
    )


def default_mu(scheduler: Any) -> float:
    """The shift of the largest image that the scheduler's settings name."""
    return float(scheduler.config.get("max_shift") or 1.15)
