"""A pipeline's denoiser as a function: the one that made the sample, at every chosen step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

from evaluator.errors import ProbeError
from evaluator.pipelines import denoiser_of
from evaluator.probes.jacobian import full_jacobian, randomised_spectrum
from evaluator.probes.latents import LatentsProbe
from evaluator.probes.steps import StepChoice
from evaluator.probes.trajectory import TrajectoryPoint, frozen, recorded_trajectory
from tests.tiny import FAMILIES, call_arguments


def points_of(model: Any, prompts: Any, steps: Any = "all") -> list[TrajectoryPoint]:
    with recorded_trajectory(model.pipeline, StepChoice.parse(steps)) as points:
        model.generate(prompts)
    return points


def assert_its_own_function(point: TrajectoryPoint) -> None:
    """The function gives what the pipeline's own call gave, for one row and for many."""
    together = point.denoise(torch.stack([point.latents, point.latents + 0.1, point.latents]))
    assert torch.isfinite(together).all()
    tolerance = 1e-4 * float(point.x0.abs().max())
    for row in (0, 2):
        torch.testing.assert_close(together[row], point.x0, atol=tolerance, rtol=1e-4)
    assert not torch.allclose(together[1], point.x0, atol=tolerance)


SCHEDULERS = {
    "ddim": lambda c: DDIMScheduler.from_config(c),
    "euler": lambda c: EulerDiscreteScheduler.from_config(c),
    "heun": lambda c: HeunDiscreteScheduler.from_config(c),
    "dpm": lambda c: DPMSolverMultistepScheduler.from_config(c),
    "v": lambda c: DDIMScheduler.from_config(c, prediction_type="v_prediction"),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_function_is_the_one_that_made_the_sample(name: str, tiny: Any) -> None:
    pipeline = tiny.stable_diffusion()
    pipeline.scheduler = SCHEDULERS[name](pipeline.scheduler.config)
    model = tiny.model(pipeline, steps=3, guidance=1.0)
    prompts = tiny.prompts("a red dog")
    bare = model.generate(prompts)
    points = points_of(model, prompts)
    assert torch.equal(model.generate(prompts), bare), "and it is as it was"
    assert [point.step for point in points] == [0, 1, 2]
    with torch.no_grad():
        for point in points:
            assert_its_own_function(point)


def test_pixels_classes_and_edm(tiny: Any, tmp_path: Any) -> None:
    pixel = tiny.unconditional("ddpm")
    for point in points_of(tiny.model(pixel, steps=2), tiny.prompts("x")):
        assert_its_own_function(point)
    edm = tiny.stable_diffusion()
    edm.scheduler = EDMEulerScheduler()
    for point in points_of(tiny.model(edm, steps=2, guidance=1.0), tiny.prompts("a dog")):
        assert_its_own_function(point)


def test_a_transformer_that_also_predicts_the_variance() -> None:
    from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=2,
        in_channels=4, out_channels=8, num_embeds_ada_norm=1000,
    )  # fmt: skip
    with torch.no_grad():
        transformer.proj_out_2.weight.normal_(std=0.2)
    vae = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    pipeline = DiTPipeline(transformer, vae, DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    with recorded_trajectory(pipeline, StepChoice.parse("all")) as points:
        pipeline(
            [3], guidance_scale=1.0, num_inference_steps=2, output_type="np",
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
    for point in points:
        assert_its_own_function(point)


def test_its_prediction_is_the_latents_probes(tiny: Any) -> None:
    model = tiny.model(tiny.stable_diffusion(), steps=4, guidance=1.0)
    prompts = tiny.prompts("a red dog")
    rows = tiny.observe(model, prompts, LatentsProbe()).rows("latents")
    for point in points_of(model, prompts, [1, 3]):
        row = next(row for row in rows if row["step"] == point.step)
        assert float(point.x0.mean()) == pytest.approx(row["x0_mean"], rel=1e-4, abs=1e-5)
        assert point.level.log_snr == pytest.approx(row["log_snr"], rel=1e-5)


def test_a_scheduler_that_is_given_another_sum_is_refused(tiny: Any) -> None:
    model = tiny.model(tiny.stable_diffusion(), steps=2, guidance=5.0)
    with pytest.raises(ProbeError, match="not given u \\+ 1·\\(c − u\\).*Ask for --guidance 1"):
        points_of(model, tiny.prompts("a red dog"))


def test_a_pipeline_that_never_ran_is_an_error(tiny: Any) -> None:
    with (
        pytest.raises(ProbeError, match="steps all did not come"),
        recorded_trajectory(tiny.stable_diffusion(), StepChoice.parse(2)),
    ):
        pass


def test_freezing_is_undone_and_derivatives_need_no_weights(tiny: Any) -> None:
    model = tiny.model(tiny.unconditional("ddim"), steps=2)
    (point,) = points_of(model, tiny.prompts("x"), [1])
    unet = model.pipeline.unet
    with frozen(unet):
        assert not any(parameter.requires_grad for parameter in unet.parameters())
        frozen_jacobian = full_jacobian(point.denoise, point.latents, batch=96)
    assert all(parameter.requires_grad for parameter in unet.parameters())
    assert all(parameter.grad is None for parameter in unet.parameters())
    step = 1e-2 * torch.randn(point.latents.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ends = point.denoise(torch.stack([point.latents + step, point.latents - step])).double()
    secant = (ends[0] - ends[1]).flatten() / 2
    predicted = frozen_jacobian @ step.flatten().double()
    assert float((secant - predicted).norm()) < 0.01 * float(secant.norm())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_is_a_function_with_two_derivatives(family: str) -> None:
    pipeline: Any = FAMILIES[family]()
    pipeline.set_progress_bar_config(disable=True)
    arguments = {**call_arguments(family, ["a red dog"], guidance=1.0), "num_inference_steps": 2}
    with recorded_trajectory(pipeline, StepChoice.parse([1])) as points:
        pipeline(**arguments, generator=[torch.Generator().manual_seed(0)])
    (point,) = points
    with torch.no_grad():
        assert_its_own_function(point)
    with frozen(denoiser_of(pipeline)):
        found = randomised_spectrum(
            point.denoise, point.latents.float(), num_values=2, power_iterations=0,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
    # s = ‖Jᵀu‖ came from first derivatives; ‖Jv‖, from second ones, is at least u·Jv = s.
    assert torch.isfinite(found.values).all()
    assert found.energy > float(found.values.square().sum()) > 0


GUIDED = {
    "sd": {},
    "sdxl": {},
    "sd3": {},
    "pixart-alpha": {},
    "lumina2": {"cfg_normalization": False},
    "dit": {},
}
"""Family → what makes its guidance the plain sum."""


def guided_point(family: str, scale: float, **arguments: Any) -> tuple[Any, TrajectoryPoint]:
    pipeline: Any = FAMILIES[family]()
    pipeline.set_progress_bar_config(disable=True)
    called = {**call_arguments(family, ["a red dog"], guidance=scale), **arguments}
    if family == "lumina2":
        called["max_sequence_length"] = 48
    with recorded_trajectory(pipeline, StepChoice.parse([1]), guidance=scale) as points:
        pipeline(**called, num_inference_steps=3, generator=[torch.Generator().manual_seed(0)])
    return pipeline, points[0]


@pytest.mark.parametrize("family", GUIDED)
def test_the_guided_denoiser_is_a_function_too(family: str) -> None:
    _, point = guided_point(family, 3.0, **GUIDED[family])
    assert sorted(point.weights) == [-2.0, 3.0]
    with torch.no_grad():
        assert_its_own_function(point)


def test_a_guided_jacobian_is_the_sum_of_both_branches_own() -> None:
    pipeline, point = guided_point("sd", 3.0)
    unconditional, conditional = (
        point.calls[0].kwargs["encoder_hidden_states"][i : i + 1] for i in range(2)
    )
    a, b = point.level

    def alone(text: torch.Tensor) -> Any:
        def denoise(x: torch.Tensor) -> torch.Tensor:
            told = text.expand(len(x), -1, -1)
            noise = pipeline.unet(x, point.timestep, encoder_hidden_states=told).sample
            return (x - b * noise) / a

        return denoise

    with frozen(pipeline.unet):
        u, c, both = (
            full_jacobian(function, point.latents, batch=128)
            for function in (alone(unconditional), alone(conditional), point.denoise)
        )
    expected = -2 * u + 3 * c
    assert float((both - expected).norm()) < 1e-4 * float(expected.norm())
    assert float((both - c).norm()) > 1e-2 * float(c.norm()), "guidance changes it"


@pytest.mark.parametrize("family", ["lumina2", "qwen-image"])
def test_guidance_that_is_normalised_is_no_sum(family: str) -> None:
    with pytest.raises(ProbeError, match="as where guidance is rescaled or normalised"):
        guided_point(family, 3.0)
