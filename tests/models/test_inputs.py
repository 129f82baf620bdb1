"""Images that prompts bring along: conditions, images to start from, masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    ControlNetModel,
    DiffusionPipeline,
    StableDiffusionControlNetImg2ImgPipeline,
)
from PIL import Image

from evaluator.config import parse_config
from evaluator.config.schema import DiffusersModelConfig, GenerationConfig
from evaluator.data import PackOptions, open_source
from evaluator.errors import ConfigError, GenerationError, InputError, SampleError
from evaluator.models.diffusers import DiffusersModel
from evaluator.records import Prompt
from evaluator.report import write_report
from tests.runner.conftest import run_here
from tests.tiny import ARGUMENTS, call_arguments, saved
from tests.tiny.controlnets import CONTROLNETS, build_controlnet

TEXTS = ["a red dog", "a blue fox"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pipelines, a ControlNet, and prompts with three images each, one of another size."""
    root = tmp_path_factory.mktemp("inputs")
    draw = np.random.default_rng(0)
    for i in range(2):
        for name in ("control", "init", "mask"):
            size = (24, 20) if (i, name) == (1, "control") else (16, 16)
            pixels = draw.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            if name == "mask":
                pixels = np.where(np.arange(16)[None, :, None] < 8, 255, 0) * np.ones_like(pixels)
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"{name}{i}.png")
    lines = [
        {
            "key": f"k{i}",
            "text": text,
            "attachments": {name: f"{name}{i}.png" for name in ("control", "init", "mask")},
        }
        for i, text in enumerate(TEXTS)
    ]
    lines.append({"key": "bare", "text": "a dog"})
    (root / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build_controlnet().save_pretrained(root / "controlnet")
    return root


@pytest.fixture(scope="module")
def pack(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    cache = tmp_path_factory.mktemp("cache")
    return open_source(root / "prompts.jsonl", cache=cache, options=PackOptions())


def model(family: str, root: Path, pack: Any, **config: Any) -> DiffusersModel:
    arguments = {**ARGUMENTS.get(family, {}), **config.pop("arguments", {})}
    return DiffusersModel(
        DiffusersModelConfig(
            kind="diffusers", id=str(saved(family, root)), arguments=arguments, **config
        ),
        GenerationConfig(steps=4, guidance_scale=3.0, **SIZE, **config.pop("generation", {})),
        attachments=pack,
    )


SIZE = {"height": 16, "width": 16}


def made(ours: DiffusersModel, pack: Any) -> list[bytes]:
    images = ours.generate(pack.prompts(0, 2), [0, 0], [7, 8])
    return [i.permute(1, 2, 0).numpy().tobytes() for i in images if isinstance(i, torch.Tensor)]


def pictures(root: Path, name: str) -> list[Image.Image]:
    mode = "L" if name == "mask" else "RGB"
    opened = [Image.open(root / f"{name}{i}.png").convert(mode) for i in range(2)]
    return [image.resize((16, 16), Image.Resampling.LANCZOS) for image in opened]


def by_hand(bare: Any, family: str, **inputs: Any) -> list[bytes]:
    """The bare pipeline's images for the same prompts, seeds and inputs."""
    bare.set_progress_bar_config(disable=True)
    called = {**call_arguments(family, TEXTS), **inputs}
    if (
        family in ("sd", "sdxl")
        and "controlnet" not in bare.components
        and "mask_image" not in inputs
    ):
        called = {k: v for k, v in called.items() if k not in SIZE}
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    return [x.tobytes() for x in bare(**called, num_inference_steps=4, generator=generators).images]


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux", "qwen-image"])
@pytest.mark.parametrize("task", ["image-to-image", "inpainting"])
def test_other_tasks_start_from_the_attachments(
    family: str, task: str, root: Path, pack: Any
) -> None:
    plain = DiffusionPipeline.from_pretrained(saved(family, root), local_files_only=True)
    inputs: dict[str, Any] = {"image": pictures(root, "init"), "strength": 0.5}
    bare = AutoPipelineForImage2Image
    if task == "inpainting":
        bare, inputs["mask_image"] = AutoPipelineForInpainting, pictures(root, "mask")
    expected = by_hand(bare.from_pipe(plain), family, **inputs)
    ours = model(family, root, pack, task=task, arguments={"strength": 0.5})
    assert made(ours, pack) == expected
    assert ours.fingerprint != model(family, root, pack).fingerprint
    stronger = model(family, root, pack, task=task, arguments={"strength": 1.0})
    assert made(stronger, pack) != expected


@pytest.mark.parametrize("family", sorted(set(CONTROLNETS) - {"sd3"}))
def test_a_controlnet_sees_each_prompts_condition(
    family: str, root: Path, pack: Any, tmp_path: Path
) -> None:
    network = build_controlnet(family)
    network.save_pretrained(tmp_path)
    plain = DiffusionPipeline.from_pretrained(saved(family, root), local_files_only=True)
    bare = AutoPipelineForText2Image.from_pipe(plain, controlnet=network)
    argument = "image" if family in ("sd", "sdxl") else "control_image"

    def expected(controls: list[Image.Image]) -> list[bytes]:
        given = {argument: controls, "controlnet_conditioning_scale": 0.8}
        return by_hand(bare, family, **given)

    controls = pictures(root, "control")
    ours = model(family, root, pack, controlnet={"id": str(tmp_path), "scale": 0.8})
    images = made(ours, pack)
    assert images == expected(controls)
    assert images != expected(controls[::-1])


def test_a_condition_that_is_encoded_with_noise_of_its_own_is_an_error(
    root: Path, pack: Any, tmp_path: Path
) -> None:
    build_controlnet("sd3").save_pretrained(tmp_path)
    ours = model("sd3", root, pack, controlnet={"id": str(tmp_path)})
    with pytest.raises(GenerationError, match=r"drew from the global .* they cannot be used"):
        made(ours, pack)


def test_a_controlnets_strength_and_range_reach_the_pipeline(root: Path, pack: Any) -> None:
    config = {"id": str(root / "controlnet"), "scale": 0.8}
    others = ({"scale": 0.2}, {"start": 0.6}, {"end": 0.3})
    models = [model("sd", root, pack, controlnet={**config, **other}) for other in ({}, *others)]
    assert len({tuple(made(ours, pack)) for ours in models}) == 4
    assert len({ours.fingerprint for ours in (*models, model("sd", root, pack))}) == 5


def test_a_controlnet_steers_a_start_image_too(root: Path, pack: Any) -> None:
    network = ControlNetModel.from_pretrained(root / "controlnet", local_files_only=True)
    bare = StableDiffusionControlNetImg2ImgPipeline.from_pretrained(
        saved("sd", root), controlnet=network, local_files_only=True
    )
    inputs = {"image": pictures(root, "init"), "control_image": pictures(root, "control")}
    expected = by_hand(bare, "sd", **inputs, strength=0.5, controlnet_conditioning_scale=1.0)
    ours = model(
        "sd",
        root,
        pack,
        task="image-to-image",
        controlnet={"id": str(root / "controlnet")},
        arguments={"strength": 0.5},
    )
    assert made(ours, pack) == expected


def test_a_prompt_without_its_attachment_is_an_error_row(root: Path, tmp_path: Path) -> None:
    record = {
        "name": "start",
        "model": {"kind": "diffusers", "id": str(saved("sd", root)), "task": "image-to-image"},
        "generation": {"steps": 3, "guidance_scale": 3.0, **SIZE},
        "prompts": {"source": str(root / "prompts.jsonl")},
        "probes": {"attention": {"steps": 2, "maps": 3}, "latents": {}},
        "runtime": {"threads": 1, "batch_size": 3, "shard_size": 3, "cache": str(tmp_path / "c")},
    }
    outcome = run_here(parse_config(json.dumps(record), where="test"), tmp_path / "run")
    for name in ("attention", "attention_tokens", "heatmaps", "latents"):
        seen = pq.read_table(outcome.run.shard_path(0) / f"{name}.parquet")
        assert set(seen["key"].to_pylist()) == {"k0", "k1"}, name
    table = pq.read_table(outcome.run.shard_path(0) / "samples.parquet")
    errors = dict(zip(table["key"].to_pylist(), table["error"].to_pylist(), strict=True))
    assert errors == {
        "k0": None,
        "k1": None,
        "bare": "expected a prompt with the attachment 'init', got none",
    }


def test_where_every_prompt_is_refused_nothing_was_observed(root: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"key": f"k{i}", "text": "a dog"}) for i in range(2)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    record = {
        "name": "start",
        "model": {"kind": "diffusers", "id": str(saved("sd", root)), "task": "image-to-image"},
        "generation": {"steps": 3, "guidance_scale": 3.0, **SIZE},
        "prompts": {"source": str(tmp_path / "prompts.jsonl")},
        "probes": {"attention": {"steps": 2}, "latents": {}},
        "runtime": {"threads": 1, "batch_size": 2, "shard_size": 2, "cache": str(tmp_path / "c")},
    }
    outcome = run_here(parse_config(json.dumps(record), where="test"), tmp_path / "run")
    shard = outcome.run.shard_path(0)
    assert pq.read_table(shard / "attention.parquet").num_rows == 0
    assert pq.read_table(shard / "latents.parquet").num_rows == 0
    assert pq.read_table(shard / "attention_layers.parquet").num_rows == 7
    assert write_report(outcome.run).is_file()


def test_a_row_depends_on_its_own_attachment_alone(root: Path, pack: Any) -> None:
    ours = model("sd", root, pack, task="image-to-image")
    prompts = pack.prompts(0, 2)
    missing = Prompt(prompts[1].key, prompts[1].text)
    whole = ours.generate(prompts, [0, 0], [7, 8])
    part = ours.generate([prompts[0], missing], [0, 0], [7, 8])
    assert isinstance(part[1], SampleError)
    assert isinstance(whole[0], torch.Tensor)
    assert isinstance(part[0], torch.Tensor)
    assert torch.equal(whole[0], part[0])


def test_settings_that_do_not_fit_the_inputs_are_refused(root: Path, pack: Any) -> None:
    sd = str(saved("sd", root))
    config = DiffusersModelConfig(kind="diffusers", id=sd, task="inpainting")
    with pytest.raises(ConfigError, match=r"generation.height: expected the size .* init, mask"):
        DiffusersModel(config, GenerationConfig(), attachments=pack)
    with pytest.raises(ConfigError, match="expected a source of the attachments init, mask"):
        DiffusersModel(config, GenerationConfig(**SIZE))
    for family in ("dit", "lumina2"):
        with pytest.raises(
            ConfigError, match=r"model.task: expected a pipeline that diffusers has"
        ):
            model(family, root, pack, task="image-to-image")
    with pytest.raises(ConfigError, match=r"has for text-to-image with a ControlNet, got Lumina2"):
        model("lumina2", root, pack, controlnet={"id": str(root / "controlnet")})


def test_weights_that_are_no_controlnet_are_refused(root: Path, pack: Any) -> None:
    with pytest.raises(InputError, match=r"expected a ControlNet .* got 'UNet2DConditionModel'"):
        model("sd", root, pack, controlnet={"id": str(saved("sd", root) / "unet")})
    (root / "empty").mkdir()
    with pytest.raises(InputError, match=r"expected weights as .safetensors, got nothing"):
        model("sd", root, pack, controlnet={"id": str(root / "empty")})


def test_a_mask_keeps_what_is_black(root: Path, pack: Any) -> None:
    """The tiny autoencoder is untrained: kept means that two seeds agree there, and only there."""
    ours = model("sd", root, pack, task="inpainting", arguments={"strength": 1.0})
    prompts = pack.prompts(0, 1)
    one, two = (ours.generate(prompts, [0], [seed])[0] for seed in (7, 8))
    assert isinstance(one, torch.Tensor)
    assert isinstance(two, torch.Tensor)
    change = (one.float() - two.float()).abs().mean(dim=(0, 1))
    assert change[:6].mean() > 3 * change[-4:].mean()
