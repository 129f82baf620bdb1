"""Noise levels of a scheduler, and x0 and ε from what the model predicted.

Every supported scheduler keeps x_t = a·x0 + b·ε and differs only in what a and b are:

    vp    a = √ᾱ_t, b = √(1 − ᾱ_t)             DDPM, DDIM, PNDM (ε), LCM, TCD
    ve    a = 1, b = σ                          Euler, Heun, LMS, KDPM2, and the ancestral ones
    dpm   a = 1/√(1 + σ²), b = σ·a              DPM-Solver, UniPC, DEIS, SA-Solver
    flow  a = 1 − σ, b = σ                      flow matching; DPM-Solver etc. on flow sigmas
    edm   a = 1, b = σ, preconditioned          EDM (Karras et al. 2022, table 1)
    trig  a = cos t, b = sin t                  SCM, IPNDM: their curves are known, no prediction is

A scheduler is told apart by its attributes. x0 is the formula's, before any clipping or
thresholding that the scheduler may do afterwards.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ProbeError

if TYPE_CHECKING:
    from torch import Tensor


class NoiseFamily(Enum):
    """How a scheduler scales signal and noise; the module's docstring has the formulas."""

    VP = "vp"
    VE = "ve"
    DPM = "dpm"
    FLOW = "flow"
    EDM = "edm"
    TRIG = "trig"


class NoiseLevel(NamedTuple):
    """a and b of x_t = a·x0 + b·ε."""

    alpha: float
    sigma: float

    @property
    def log_snr(self) -> float:
        """2 ln(a/b), natural; −inf for pure noise and +inf for no noise."""
        if self.alpha <= 0:
            return -math.inf
        return math.inf if self.sigma <= 0 else 2 * math.log(self.alpha / self.sigma)


class Prediction(NamedTuple):
    """What the model's output says about x_t. Tensors shaped like x_t."""

    x0: Tensor
    noise: Tensor


UNVERIFIED = {
    "CMStochasticIterativeScheduler": "its model predicts through a consistency boundary",
    "CosineDPMSolverMultistepScheduler": "it needs torchsde, without which it was not checked",
    "DDIMInverseScheduler": "it runs from the image to the noise",
    "DPMSolverMultistepInverseScheduler": "it runs from the image to the noise",
    "DPMSolverSDEScheduler": "it needs torchsde, without which it was not checked",
    "FlowMapEulerDiscreteScheduler": "its model predicts the mean velocity between two levels",
    "HeliosDMDScheduler": "its stages and chunks have noise levels of their own",
    "HeliosScheduler": "its stages and chunks have noise levels of their own",
    "LTXEulerAncestralRFScheduler": "its levels come from the timesteps of a video pipeline",
    "MiniMaxH3Scheduler": "its model predicts the velocity towards the image",
    "RePaintScheduler": "it jumps back and forth in time",
    "UnCLIPScheduler": "its prior predicts embeddings, not images",
}
"""Schedulers for which the formulas fail, or were never checked, and why."""


def noise_family(scheduler: Any) -> NoiseFamily:
    """Tell a scheduler's family by its attributes; ProbeError where no formula is known to hold."""
    name = type(scheduler).__name__
    for base in type(scheduler).__mro__:
        if base.__name__ in UNVERIFIED:
            raise _unsupported(name, UNVERIFIED[base.__name__])
    config = scheduler.config
    prediction = config.get("prediction_type")
    if hasattr(scheduler, "prk_timesteps") and prediction != "epsilon":
        raise _unsupported(f"{name} with prediction_type {prediction!r}", "it drifts; ε is checked")
    if config.get("invert_sigmas"):
        raise _unsupported(f"{name} with invert_sigmas", "its sigmas run from noise to image")
    family = family_by_attributes(scheduler)
    if family is None or family is NoiseFamily.TRIG or _is_continuous(scheduler):
        raise _unsupported(name, "its attributes match no known way of mixing signal and noise")
    return family


def family_by_attributes(scheduler: Any) -> NoiseFamily | None:
    """The family that a scheduler's curves belong to, checked or not; None if there is none."""
    config = scheduler.config
    has_cumprod = hasattr(scheduler, "alphas_cumprod")
    if hasattr(scheduler, "precondition_outputs"):
        return NoiseFamily.EDM
    if config.get("use_flow_sigmas"):
        return NoiseFamily.FLOW
    if has_cumprod and hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        return NoiseFamily.DPM
    if has_cumprod:
        return NoiseFamily.VE if hasattr(scheduler, "sigmas") else NoiseFamily.VP
    if hasattr(scheduler, "sigmas"):
        return NoiseFamily.VE if "sigma_max" in config else NoiseFamily.FLOW
    if hasattr(scheduler, "_alpha_cumprod"):
        return NoiseFamily.VP
    trigonometric = config.get("prediction_type") == "trigflow"
    if trigonometric or (hasattr(scheduler, "alphas") and hasattr(scheduler, "betas")):
        return NoiseFamily.TRIG
    return None


def _is_continuous(scheduler: Any) -> bool:
    """Whether noise levels follow from continuous time alone, so that no step can be looked up."""
    if hasattr(scheduler, "alphas_cumprod") or hasattr(scheduler, "precondition_outputs"):
        return False
    return not hasattr(scheduler, "scale_noise")


def _unsupported(name: str, why: str) -> ProbeError:
    return ProbeError(
        f"Expected a scheduler whose latents are a·x0 + b·ε at every step; got {name}: {why}. "
        "Choose another scheduler (DDIM, DDPM, Euler, Heun, DPM-Solver, UniPC, DEIS, EDM or "
        "FlowMatch), or remove this probe."
    )


def level_of_sigma(family: NoiseFamily, sigma: float) -> NoiseLevel:
    """(a, b) of a scheduler that indexes its steps by σ."""
    if family is NoiseFamily.FLOW:
        return NoiseLevel(1 - sigma, sigma)
    if family is NoiseFamily.DPM:
        alpha = 1 / math.sqrt(1 + sigma * sigma)
        return NoiseLevel(alpha, sigma * alpha)
    return NoiseLevel(1.0, sigma)


def level_of_cumprod(alpha_cumprod: float) -> NoiseLevel:
    """(a, b) of a variance-preserving schedule from ᾱ."""
    return NoiseLevel(math.sqrt(alpha_cumprod), math.sqrt(max(0.0, 1 - alpha_cumprod)))


def level_of_call(scheduler: Any, family: NoiseFamily, timestep: Any) -> NoiseLevel:
    """(a, b) of the latents that the coming call of `scheduler.step(…, timestep, …)` receives."""
    if family is NoiseFamily.VP:
        return level_of_cumprod(float(scheduler.alphas_cumprod[int(timestep)]))
    return level_of_sigma(family, float(scheduler.sigmas[_sigma_index(scheduler, timestep)]))


def _sigma_index(scheduler: Any, timestep: Any) -> int:
    """Index into `scheduler.sigmas`; a scheduler sets its own only inside its first step."""
    for counter in ("step_index", "begin_index"):
        index = getattr(scheduler, counter, None)
        if index is not None:
            return int(index)
    return int(scheduler.index_for_timestep(timestep))


def predict(
    scheduler: Any,
    family: NoiseFamily,
    sample: Tensor,
    model_output: Tensor,
    *,
    alpha: Tensor,
    sigma: Tensor,
) -> Prediction:
    """x0 and ε from x_t and the model's (guided) output.

    `alpha` and `sigma` broadcast against `sample`. Variance-exploding latents are first scaled
    to unit variance, so one set of formulas serves (Salimans & Ho 2022, appendix D).
    """
    if family is NoiseFamily.EDM:
        x0 = scheduler.precondition_outputs(sample, model_output, sigma)
        return Prediction(x0, (sample - x0) / sigma)
    kind = scheduler.config.get("prediction_type")
    if family is NoiseFamily.FLOW and kind in (None, "flow_prediction"):
        return Prediction(sample - sigma * model_output, sample + alpha * model_output)
    scale = (alpha * alpha + sigma * sigma).sqrt()
    unit, a, b = sample / scale, alpha / scale, sigma / scale
    if kind == "epsilon":
        return Prediction((unit - b * model_output) / a, model_output)
    if kind == "v_prediction":
        return Prediction(a * unit - b * model_output, b * unit + a * model_output)
    if kind in ("sample", "original_sample"):
        return Prediction(model_output, (unit - a * model_output) / b)
    raise ProbeError(
        f"Expected prediction_type epsilon, v_prediction, sample or flow_prediction; got {kind!r} "
        f"on {type(scheduler).__name__}. Set the scheduler's prediction_type, or remove this probe."
    )
