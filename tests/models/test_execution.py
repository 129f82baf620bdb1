"""How a pipeline computes: what is set reaches it, what it cannot follow is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

from evaluator.config import parse_config
from evaluator.config.pipeline import SchedulerConfig
from evaluator.config.schema import DiffusersModelConfig, GenerationConfig
from evaluator.errors import ConfigError, GenerationError, ProbeError
from evaluator.models.diffusers import DiffusersModel
from evaluator.models.schedulers import swap_scheduler
from evaluator.probes import AttentionProbe
from evaluator.records import Prompt
from tests.tiny import ARGUMENTS, FAMILIES, call_arguments, generation, saved

PROMPTS = [Prompt("a", "a red dog", class_label=1), Prompt("b", "a blue fox", class_label=2)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def model(family: str, root: Path, *, steps: int = 2, **config: Any) -> DiffusersModel:
    guidance = config.pop("guidance_scale", 3.0)
    arguments = {**ARGUMENTS.get(family, {}), **config.pop("arguments", {})}
    return DiffusersModel(
        DiffusersModelConfig(
            kind="diffusers",
            id=str(saved(family, root)),
            arguments=arguments,
            **config,
        ),
        GenerationConfig(steps=steps, guidance_scale=guidance, **generation(family)),
    )


def made(ours: DiffusersModel) -> torch.Tensor:
    images = ours.generate(PROMPTS, [0, 0], [7, 8])
    return torch.stack([image for image in images if isinstance(image, torch.Tensor)]).int()


@pytest.mark.parametrize("family", ["flux", "qwen-image"])
def test_an_attention_backend_is_used_and_known_to_the_fingerprint(family: str, root: Path) -> None:
    default = _AttentionBackendRegistry.get_active_backend()
    plain, other = model(family, root), model(family, root, attention_backend="_native_math")
    assert _AttentionBackendRegistry.get_active_backend() == default
    backends = {
        str(module.processor._attention_backend.value)
        for module in other.pipeline.transformer.modules()
        if hasattr(getattr(module, "processor", None), "_attention_backend")
    }
    assert backends == {"_native_math"}
    assert (made(plain) - made(other)).abs().max() <= 1
    assert plain.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("family", "option", "message"),
    [
        ("sd", {"attention_backend": "native"}, "of UNet2DConditionModel take no backend"),
        ("flux", {"attention_backend": "nativ"}, r"expected one of .*native.*, got 'nativ'"),
        ("flux", {"attention_backend": "flash_hub"}, "expected one of .*, got 'flash_hub'"),
        ("ddpm", {"vae_slicing": True}, "model.vae_slicing: DDPMPipeline has no autoencoder"),
        ("ddim", {"vae_tiling": True}, "model.vae_tiling: DDIMPipeline has no autoencoder"),
        ("ddpm", {"dtype": "bfloat16"}, "model.dtype: DDPMPipeline makes pixels without an auto"),
        ("sd", {"cpu_offload": "model"}, "expected a GPU, got the device 'cpu'"),
    ],
)
def test_settings_that_a_pipeline_cannot_follow_are_refused(
    family: str, option: dict[str, Any], message: str, root: Path
) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=rf"model.{name}: .*{message}|{message}"):
        model(family, root, **option)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"ddpm", "ddim"}))
def test_slicing_changes_no_image(family: str, root: Path) -> None:
    sliced = model(family, root, vae_slicing=True)
    assert sliced.pipeline.vae.use_slicing
    assert (made(sliced) - made(model(family, root))).abs().max() <= 1


@pytest.mark.parametrize("family", ["sdxl", "flux", "sana", "qwen-image"])
def test_half_precision_comes_near(family: str, root: Path) -> None:
    near = (made(model(family, root, dtype="bfloat16")) - made(model(family, root))).abs()
    assert 0 < near.float().mean() < 3


def test_tiling_is_switched_on(root: Path) -> None:
    tiled = model("sd", root, vae_tiling=True)
    assert tiled.pipeline.vae.use_tiling
    assert tiled.fingerprint != model("sd", root).fingerprint


@pytest.mark.parametrize(
    ("scheduler", "arguments", "guidance", "steps"),
    [
        ("LCMScheduler", {"original_inference_steps": 20}, 0.0, 4),
        ("LCMScheduler", {}, 1.0, 2),
        ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}, 0.0, 1),
        ("TCDScheduler", {}, 0.0, 4),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, 3.0, 5),
    ],
    ids=["lcm", "lcm, two steps", "turbo", "tcd", "dpm"],
)
def test_few_step_settings_reach_the_pipeline(
    scheduler: str, arguments: dict[str, Any], guidance: float, steps: int, root: Path
) -> None:
    import diffusers

    swapped = {"name": scheduler, "arguments": arguments}
    ours = model("sd", root, steps=steps, scheduler=swapped, guidance_scale=guidance)
    calls = []
    hook = ours.pipeline.unet.register_forward_hook(
        lambda _, args, out: calls.append(out[0].shape[0])
    )
    images = made(ours)
    hook.remove()
    assert calls == [4 if guidance > 1 else 2] * steps
    bare = DiffusionPipeline.from_pretrained(saved("sd", root), local_files_only=True)
    bare.set_progress_bar_config(disable=True)
    bare.scheduler = getattr(diffusers, scheduler).from_config(bare.scheduler.config, **arguments)
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    called = call_arguments("sd", [str(p.text) for p in PROMPTS], guidance=guidance)
    expected = bare(
        **called, num_inference_steps=steps, generator=generators, output_type="np"
    ).images
    expected = (torch.from_numpy(expected) * 255).round().int().permute(0, 3, 1, 2)
    assert torch.equal(images, expected)


@pytest.mark.parametrize(
    ("family", "scheduler", "message"),
    [
        ("sd", {"name": "AutoencoderKL"}, r"class of diffusers, got 'AutoencoderKL'\.$"),
        ("sd", {"name": "DDIMSchedular"}, r"got 'DDIMSchedular'; did you mean 'DDIMScheduler'\?$"),
        ("sd", {"name": "dpmsolvermultistep"}, r"did you mean 'DPMSolverMultistepScheduler'\?$"),
        (
            "sd",
            {"name": "DDIMScheduler", "arguments": {"karras": True}},
            "DDIMScheduler takes no k",
        ),
        *(
            ("sd", {"name": name, "arguments": arguments}, message)
            for name, arguments, message in (
                ("DDIMScheduler", {"beta_schedule": "round"}, "DDIMScheduler takes, got: round"),
                ("DDIMScheduler", {"beta_start": "high"}, "arguments that DDIMScheduler takes"),
                ("DDIMScheduler", {"trained_betas": [0.1, 0.2]}, "1000 trained_betas, .* got 2"),
                ("DPMSolverMultistepScheduler", {"solver_type": "x"}, "takes, got: x is not impl"),
                ("DDIMInverseScheduler", {}, "it runs from image to noise"),
                ("RePaintScheduler", {}, "it also takes original_image, mask"),
                ("ScoreSdeVeScheduler", {}, "one method `step`, got ScoreSdeVeScheduler"),
                ("DPMSolverSDEScheduler", {}, "DPMSolverSDEScheduler needs .*torchsde: install"),
                ("EDMEulerScheduler", {}, r"expected .* \(alphas_cumprod\), .*with EDM's precond"),
                ("IPNDMScheduler", {}, "got IPNDMScheduler with levels of its own"),
            )
        ),
        ("sd", {"name": "FlowMatchEulerDiscreteScheduler"}, "of a diffusion with noise levels"),
        ("sd3", {"name": "DPMSolverMultistepScheduler"}, r"of flow matching, as .* got DPMSolver"),
        ("sana", {"name": "DDIMScheduler"}, r"of flow matching, as the checkpoint was trained"),
    ],
)
def test_schedulers_that_do_not_fit_are_refused(
    family: str, scheduler: dict[str, Any], message: str, root: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        model(family, root, scheduler=scheduler)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")
def test_every_scheduler_of_diffusers_is_taken_or_refused_in_words(root: Path) -> None:
    import diffusers

    pipeline = DiffusionPipeline.from_pretrained(saved("sd", root), local_files_only=True)
    taken, refused = set(), {}
    for name in sorted(name for name in dir(diffusers) if name.endswith("Scheduler")):
        try:
            swap_scheduler(pipeline.scheduler, SchedulerConfig(name=name))
        except ConfigError as error:
            refused[name] = str(error)
        else:
            taken.add(name)
    assert all(name in said for name, said in refused.items())
    assert {"DDIMScheduler", "EulerDiscreteScheduler", "LCMScheduler", "TCDScheduler"} <= taken
    assert {"ScoreSdeVeScheduler", "KarrasVeScheduler", "VQDiffusionScheduler"} <= set(refused)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_layers_of_the_text_encoder_can_be_skipped(family: str, root: Path) -> None:
    def embedded(**arguments: Any) -> torch.Tensor:
        ours = model(family, root, arguments=arguments)
        given = {"device": torch.device("cpu"), "num_images_per_prompt": 1}
        encoded = ours.pipeline.encode_prompt(
            prompt="a red dog", do_classifier_free_guidance=False, **given, **arguments
        )
        assert len(made(ours)) == 2
        result: torch.Tensor = encoded[0]
        return result

    if family == "sd":  # it normalises what it takes, so that skipping none is the default
        assert torch.equal(embedded(clip_skip=0), embedded())
    assert not torch.allclose(embedded(clip_skip=1), embedded(clip_skip=0))


def test_what_a_pipeline_says_against_its_settings_is_an_error_in_words(root: Path) -> None:
    spacing = {"name": "DDIMScheduler", "arguments": {"timestep_spacing": "even"}}
    with pytest.raises(GenerationError, match=r"got: even is not supported.* Check generation"):
        made(model("sd", root, scheduler=spacing))


@pytest.mark.parametrize(
    ("family", "size", "message"),
    [
        ("sd", 21, "got: `height` and `width` have to be divisible by 8 but are 21 and 21"),
        ("flux", 19, "height x width = 19x19, got 16x16: FluxPipeline rounds"),
    ],
)
def test_sizes_that_a_pipeline_cannot_make_are_an_error(
    family: str, size: int, message: str, root: Path
) -> None:
    ours = DiffusersModel(
        DiffusersModelConfig(
            kind="diffusers", id=str(saved(family, root)), arguments=ARGUMENTS.get(family, {})
        ),
        GenerationConfig(steps=2, guidance_scale=3.0, height=size, width=size),
    )
    with pytest.raises(GenerationError, match=message):
        made(ours)


def test_a_solver_that_knows_flow_matching_may_take_over(root: Path) -> None:
    arguments = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    swapped = {"name": "DPMSolverMultistepScheduler", "arguments": arguments}
    first, second = (
        made(model("sd3", root, steps=20)),
        made(model("sd3", root, steps=20, scheduler=swapped)),
    )
    # Two solvers of the same equation.
    assert (first - second).abs().float().mean() < 0.1 * first.float().std()


def test_where_weights_wait_is_no_part_of_the_runs_identity() -> None:
    text = "name: a\nmodel: {kind: diffusers, id: some/model%s}\nprompts: {source: p.txt}\n"
    plain, waiting, tiled = (
        parse_config(text % option, where="test").identity()
        for option in ("", ", cpu_offload: model", ", vae_tiling: true")
    )
    assert plain == waiting
    assert plain != tiled


def test_a_compiled_denoiser_gives_the_same_images_and_hides_its_attention(root: Path) -> None:
    plain = model("sd", root)
    # Compiling takes minutes, even of something tiny: here it is marked and runs as it was.
    with torch.compiler.set_stance("force_eager"):
        compiled = model("sd", root, compile=True)
        assert compiled.pipeline.unet._compiled_call_impl is not None
        assert torch.equal(made(compiled), made(plain))
        with (
            pytest.raises(ProbeError, match=r"torch\.compile"),
            AttentionProbe().attach(compiled, PROMPTS, [0, 1]),
        ):
            made(compiled)
    assert compiled.fingerprint != plain.fingerprint
