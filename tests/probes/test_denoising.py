"""The error of a denoiser that is known exactly comes out as its closed form says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from evaluator.errors import ProbeError
from evaluator.probes.denoising import denoise_along
from evaluator.probes.noise import NoiseFamily, level_of_call, noise_family
from evaluator.probes.steering import predictions_along, starting_from

SPREAD = 0.5
"""Standard deviation of the images, whose values are independent and normal."""
V = {"prediction_type": "v_prediction"}
SAMPLE = {"prediction_type": "sample"}
SCHEDULERS = {
    "ddpm": DDPMScheduler(),
    "ddim-v": DDIMScheduler(**V),
    "ddim-sample": DDIMScheduler(**SAMPLE),
    "zero-snr-v": DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing", **V),
    "euler": EulerDiscreteScheduler(),
    "euler-v": EulerDiscreteScheduler(**V),
    "heun": HeunDiscreteScheduler(),
    "dpm": DPMSolverMultistepScheduler(),
    "unipc-v": UniPCMultistepScheduler(**V),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "edm": EDMEulerScheduler(),
}


class ExactPipeline:
    """Calls its scheduler as pipelines do, with the best prediction for the images above."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.seen: list[torch.Tensor] = []

    def __call__(self, count: int, steps: int) -> torch.Tensor:
        scheduler = self.scheduler
        scheduler.set_timesteps(steps)
        generator = torch.Generator().manual_seed(0)
        sigma = getattr(scheduler, "init_noise_sigma", 1.0)
        x = torch.randn(count, 3, 16, 16, generator=generator) * sigma
        for t in scheduler.timesteps:
            scaled = (
                scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            )
            self.seen.append(x)
            x = scheduler.step(self.predict(x, scaled, t), t, x, return_dict=False)[0]
        return x

    def predict(self, x: torch.Tensor, scaled: torch.Tensor, t: Any) -> torch.Tensor:
        family = noise_family(self.scheduler)
        a, b = level_of_call(self.scheduler, family, t)
        best = a * SPREAD**2 * x / (a**2 * SPREAD**2 + b**2)
        noise = (x - a * best) / b
        if family is NoiseFamily.EDM:
            data = self.scheduler.config.sigma_data
            skip = data**2 / (b**2 + data**2)
            return (best - skip * x) / (b * data / (b**2 + data**2) ** 0.5)
        if family is NoiseFamily.FLOW:
            return noise - best
        scale = (a * a + b * b) ** 0.5
        a, b = a / scale, b / scale
        kinds = {"epsilon": noise, "sample": best, "v_prediction": a * noise - b * best}
        return kinds[self.scheduler.config.prediction_type]


def images_and_noise(count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x0 = SPREAD * torch.randn(count, 3, 16, 16, generator=generator)
    return x0, torch.randn(count, 3, 16, 16, generator=generator)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_error_of_the_exact_denoiser_is_its_closed_form(name: str):
    pipeline = ExactPipeline(SCHEDULERS[name])
    x0, noise = images_and_noise()
    found = denoise_along(pipeline, lambda: pipeline(8, 6), x0, noise)
    assert len(found) == 6
    for at in found:
        a, b = at.level
        variance = a**2 * SPREAD**2 + b**2
        # the posterior's variances of ε and x0 (Gaussian conditioning)
        expected_noise, expected_x0 = a**2 * SPREAD**2 / variance, SPREAD**2 * b**2 / variance
        # 6144 values: three standard errors of a variance are 5.4 %
        assert float(at.noise_mse.mean()) == pytest.approx(expected_noise, rel=0.06, abs=1e-6)
        assert float(at.x0_mse.mean()) == pytest.approx(expected_x0, rel=0.06, abs=1e-6)
    assert found[0].level.log_snr < found[-1].level.log_snr


@pytest.mark.parametrize("name", ["ddpm", "euler", "flow", "edm", "heun"])
def test_chosen_timesteps_are_the_nearest_of_the_run(name: str):
    pipeline = ExactPipeline(SCHEDULERS[name])
    x0, noise = images_and_noise(2)
    every = {at.timestep: at for at in denoise_along(pipeline, lambda: pipeline(2, 20), x0, noise)}
    times = list(every)
    wanted = [times[11], times[3] + 1e-3 * abs(times[3] - times[2])]
    chosen = denoise_along(pipeline, lambda: pipeline(2, 20), x0, noise, timesteps=wanted)
    assert [at.timestep for at in chosen] == [times[3], times[11]]
    for at in chosen:
        assert at.level == every[at.timestep].level
        torch.testing.assert_close(at.noise_mse, every[at.timestep].noise_mse)


def test_a_run_from_its_own_latents_is_the_run_itself():
    for name in ("ddim-v", "euler", "heun", "dpm", "unipc-v", "flow", "edm"):
        pipeline = ExactPipeline(SCHEDULERS[name])
        whole = pipeline(2, 8)
        own = pipeline.seen
        for begin in (0, 4):
            again = ExactPipeline(SCHEDULERS[name])
            place = 2 * begin if name == "heun" else begin
            with starting_from(again, lambda level, x=own[place]: x, begin=begin):
                made = again(2, 8)
            if begin and name in ("dpm", "unipc-v"):
                continue  # multistep samplers look back on steps that were not made
            torch.testing.assert_close(made, whole, msg=f"{name} from {begin}")
        assert "step" not in vars(pipeline.scheduler)


class KnowingPipeline(ExactPipeline):
    """Its network knows the image, and takes the noise level from the timestep it is told."""

    def __init__(self, scheduler: Any, x0: torch.Tensor) -> None:
        super().__init__(scheduler)
        self.x0 = x0

    def predict(self, x: torch.Tensor, scaled: torch.Tensor, t: Any) -> torch.Tensor:
        sigmas = ((1 - self.scheduler.alphas_cumprod) / self.scheduler.alphas_cumprod).log() / 2
        below = int(t)
        above = min(below + 1, len(sigmas) - 1)
        sigma = torch.lerp(sigmas[below], sigmas[above], float(t) - below).exp()
        alpha = (1 + sigma**2).rsqrt()
        return (scaled - alpha * self.x0) / (alpha * sigma)


@pytest.mark.parametrize("begin", [0, 1, 4, 7])
@pytest.mark.parametrize(
    "scheduler",
    [
        PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=True),
        LMSDiscreteScheduler(),
        HeunDiscreteScheduler(),
        KDPM2DiscreteScheduler(),
        DPMSolverMultistepScheduler(),
        UniPCMultistepScheduler(),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_a_run_from_the_middle_ends_at_the_image_that_was_noised(scheduler: Any, begin: int):
    x0, noise = images_and_noise(2)
    pipeline = KnowingPipeline(scheduler, x0)
    with starting_from(pipeline, lambda level: level.alpha * x0 + level.sigma * noise, begin=begin):
        made = pipeline(2, 8)
    torch.testing.assert_close(made, x0, atol=2e-3, rtol=0)


def test_runge_kutta_steps_come_first_or_not_at_all():
    pipeline = ExactPipeline(PNDMScheduler())
    x0, _ = images_and_noise(2)
    with (
        pytest.raises(ProbeError, match=r"begin in the middle; got PNDMScheduler.*skip_prk_steps"),
        starting_from(pipeline, lambda level: x0, begin=2),
    ):
        pipeline(2, 8)


def test_guided_rows_that_come_twice_get_the_latents_twice():
    pipeline = ExactPipeline(SCHEDULERS["ddpm"])
    x0, _ = images_and_noise(2)
    found = predictions_along(pipeline, lambda: pipeline(4, 3), lambda level: x0)
    assert [prediction.output.shape[0] for prediction in found] == [2, 2, 2]
    torch.testing.assert_close(pipeline.seen[1], torch.cat([x0, x0]))


def test_latents_of_another_shape_are_refused():
    pipeline = ExactPipeline(SCHEDULERS["ddpm"])
    with (
        pytest.raises(ProbeError, match=r"Expected latents \(2, 3, 16, 16\).*got \(2, 4, 8, 8\)"),
        starting_from(pipeline, lambda level: torch.zeros(2, 4, 8, 8)),
    ):
        pipeline(2, 3)


def test_a_scheduler_whose_levels_are_unknown_is_refused_by_name():
    pipeline = ExactPipeline(DDIMInverseScheduler())
    x0, noise = images_and_noise(2)
    with pytest.raises(ProbeError, match="got DDIMInverseScheduler: it runs from the image"):
        denoise_along(pipeline, lambda: pipeline(2, 3), x0, noise)


def test_a_pipeline_that_never_steps_is_noticed():
    pipeline = SimpleNamespace(scheduler=DDPMScheduler())
    with pytest.raises(ProbeError, match="Expected one run of the pipeline that calls"):
        predictions_along(pipeline, lambda: None, lambda level: torch.zeros(1))
    exact = ExactPipeline(DDPMScheduler())
    with (
        pytest.raises(ProbeError, match="Expected a first step below 3"),
        starting_from(exact, lambda level: torch.zeros(1), begin=3),
    ):
        exact(1, 3)
