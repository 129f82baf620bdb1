"""SDXL's refiner takes the last steps over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline

from evaluator.config.schema import DiffusersModelConfig, GenerationConfig
from evaluator.errors import ConfigError
from evaluator.models.diffusers import DiffusersModel
from evaluator.records import Prompt
from tests.tiny import saved
from tests.tiny.unets import build_refiner

PROMPTS = [Prompt("a", "a red dog"), Prompt("b", "a blue fox")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("refined")
    build_refiner().save_pretrained(root / "refiner")
    return root


def model(
    family: str, root: Path, refiner: dict[str, Any] | None, **settings: Any
) -> DiffusersModel:
    config = DiffusersModelConfig(
        kind="diffusers", id=str(saved(family, root)), refiner=refiner, **settings
    )
    return DiffusersModel(
        config, GenerationConfig(steps=5, guidance_scale=3.0, height=16, width=16)
    )


@pytest.mark.parametrize("scheduler", ["EulerDiscreteScheduler", "DDIMScheduler"])
def test_images_are_those_of_the_two_pipelines_by_hand(root: Path, scheduler: str) -> None:
    ours = model(
        "sdxl",
        root,
        {"id": str(root / "refiner"), "start": 0.6},
        scheduler={"name": scheduler},
        arguments={"guidance_rescale": 0.7},
    )
    made = ours.generate(PROMPTS, [0, 0], [7, 8])
    base, refiner = (
        DiffusionPipeline.from_pretrained(folder, local_files_only=True)
        for folder in (saved("sdxl", root), root / "refiner")
    )
    for pipeline in (base, refiner):
        chosen = getattr(diffusers, scheduler)
        pipeline.scheduler = chosen.from_config(base.scheduler.config)
    arguments = {
        "guidance_rescale": 0.7,
        "prompt": [prompt.text for prompt in PROMPTS],
        "num_inference_steps": 5,
        "guidance_scale": 3.0,
        "generator": [torch.Generator().manual_seed(seed) for seed in (7, 8)],
    }
    latents = base(**arguments, height=16, width=16, denoising_end=0.6, output_type="latent").images
    expected = refiner(**arguments, image=latents, denoising_start=0.6).images
    for image, picture in zip(made, expected, strict=True):
        assert isinstance(image, torch.Tensor)
        assert image.permute(1, 2, 0).numpy().tobytes() == picture.tobytes()


def test_the_fingerprint_knows_the_refiner_and_where_it_begins(root: Path) -> None:
    at = {"id": str(root / "refiner")}
    models = [model("sdxl", root, r) for r in (None, at, {**at, "start": 0.5})]
    assert len({m.fingerprint for m in models}) == 3
    assert models[1].describe()["added_weights_sha256"].keys() == {"refiner"}


def test_pipelines_that_cannot_share_an_image_are_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="can stop in the middle, got StableDiffusionPipeline"):
        model("sd", root, {"id": str(root / "refiner")})
    with pytest.raises(ConfigError, match="begins in the middle, got StableDiffusionPipeline"):
        model("sdxl", root, {"id": str(saved("sd", root))})


def test_the_refiner_goes_on_with_the_bases_scheduler(root: Path) -> None:
    folder = root / "other"
    refiner = build_refiner()
    refiner.scheduler = diffusers.DDIMScheduler.from_config(
        refiner.scheduler.config, prediction_type="v_prediction"
    )
    refiner.save_pretrained(folder)
    ours = model("sdxl", root, {"id": str(folder)})
    seen: list[torch.Tensor] = []
    assert ours._refiner is not None
    network = ours.refiner_pipeline.unet
    network.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    went_on = ours.refiner_pipeline.scheduler
    assert type(went_on) is type(ours.pipeline.scheduler)
    assert went_on.config.prediction_type == "v_prediction"
    ours.generate(PROMPTS, [0, 0], [7, 8])
    assert len(seen) == 1
