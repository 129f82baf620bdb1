"""Pipelines that want an image with every prompt get one, or the verb says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from evaluator.errors import ConfigError, InputError, ProbeError
from evaluator.probing.ignored import require_asked_for
from evaluator.probing.images import images_size
from evaluator.probing.inputs import ModelRequest, load_model
from evaluator.probing.inputs import require_start_from_noise as require_noise
from evaluator.probing.jacobian import JacobianRequest, probe_jacobian
from evaluator.records import Prompt
from tests.tiny import saved
from tests.tiny.controlnets import build_controlnet
from tests.tiny.unets import build_refiner

SIZE = ("generation.height=16", "generation.width=16", "generation.steps=2")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its ControlNet, and two images."""
    folder = tmp_path_factory.mktemp("attached")
    saved("sd", folder)
    build_controlnet("sd").save_pretrained(folder / "controlnet")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3), dtype=np.uint8)
    for name, image in zip(("one", "two"), pixels, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


def steered(root: Path, name: str | None = "one", **changes: Any) -> ModelRequest:
    attached = () if name is None else (("control", root / f"{name}.png"),)
    net = f"model.controlnet={{id: {root / 'controlnet'}}}"
    return ModelRequest(
        str(root / "sd"), device="cpu", overrides=(*SIZE, net), attachments=attached, **changes
    )


def test_every_sample_gets_the_image_that_is_given(root: Path) -> None:
    made = {}
    for name in ("one", "two"):
        probed = load_model(steered(root, name))
        assert probed.attachments == ("control",)
        made[name] = probed.generate([Prompt("p", "a red dog")] * 2, [1, 1])
        assert torch.equal(made[name][0], made[name][1])
    assert not torch.equal(made["one"][0], made["two"][0])


def test_without_one_those_of_the_first_prompt_are_taken(root: Path, tmp_path: Path) -> None:
    lines = [{"key": "bare", "text": "a fox"},
             {"key": "full", "text": "a dog", "attachments": {"control": "two.png"}}]  # fmt: skip
    shutil.copy(root / "two.png", tmp_path)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = tmp_path / "config.yaml"
    record = {
        "name": "steered",
        "model": {"kind": "diffusers", "id": str(root / "sd"),
                  "controlnet": {"id": str(root / "controlnet")}},
        "generation": {"steps": 2, "height": 16, "width": 16},
        "prompts": {"source": str(prompts)},
    }  # fmt: skip
    config.write_text(yaml.safe_dump(record))
    probed = load_model(ModelRequest(str(config), device="cpu"))
    assert probed.notes == ("every sample has the control of the prompt full",)
    given = load_model(
        ModelRequest(
            str(config), device="cpu", attachments=(("control", root / "two.png"),)
        )
    )  # fmt: skip
    prompt = [Prompt("p", "a red dog")]
    assert torch.equal(probed.generate(prompt, [1])[0], given.generate(prompt, [1])[0])


def test_what_is_missing_or_unknown_is_said(
    root: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    with pytest.raises(ConfigError, match="expects control with every prompt, got none; add --att"):
        load_model(steered(root, None))
    with pytest.raises(InputError, match=r"--attach: expected an image at .*three.png, got: No"):
        load_model(steered(root, "three"))
    plain = ModelRequest(
        str(root / "sd"), device="cpu", overrides=SIZE,
        attachments=(("control", root / "one.png"),),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="takes no attachment 'control': it takes none"):
        load_model(plain)
    with pytest.raises(ProbeError, match="whose ControlNet sees it too.*controlnet=null"):
        probe_jacobian(
            JacobianRequest(steered(root), prompts=("a",), samples=1, steps=1), tmp_path / "out"
        )
    ended = call("probe", "anatomy", root / "sd", "--attach", "control")
    assert ended.status == 2
    assert "--attach: expected NAME=IMAGE, each name once, got 'control'" in ended.err


def test_a_pipeline_that_starts_from_an_image_chooses_its_own_latents(root: Path) -> None:
    request = ModelRequest(
        str(root / "sd"), device="cpu", overrides=(*SIZE, "model.task=image-to-image"),
        attachments=(("init", root / "one.png"),),
    )  # fmt: skip
    with pytest.raises(ProbeError, match="which starts from an image.*model.task=text-to-image"):
        require_noise(load_model(request))


def test_what_the_pipeline_would_ignore_is_refused(root: Path, unconditional: Path) -> None:
    pixels = load_model(ModelRequest(str(unconditional), device="cpu"))
    with pytest.raises(ConfigError, match="--prompt: DDPMPipeline takes no text; leave it out"):
        require_asked_for(pixels, prompt=True, class_label=False)
    with pytest.raises(ConfigError, match="--class-label: DDPMPipeline takes no class"):
        require_asked_for(pixels, prompt=False, class_label=True)
    text = load_model(ModelRequest(str(root / "sd"), device="cpu", overrides=SIZE))
    with pytest.raises(ConfigError, match="expected a prompt with a text, got none"):
        text.generate([Prompt("p", None)], [0])
    odd = ModelRequest(
        str(root / "sd"), device="cpu", overrides=("generation.height=15", "generation.width=16")
    )
    with pytest.raises(ConfigError, match="multiples of 2 pixels, as the latents are, got 15×16"):
        images_size(load_model(odd))


def test_compiling_and_a_refiner_are_left_out_and_said_to_be(tmp_path: Path) -> None:
    build_refiner().save_pretrained(tmp_path / "refiner")
    settings = (
        *SIZE, "model.compile=true", f"model.refiner={{id: {tmp_path / 'refiner'}, start: 0.5}}",
    )  # fmt: skip
    request = ModelRequest(str(saved("sdxl", tmp_path)), device="cpu", overrides=settings)
    first, whole = load_model(request), load_model(request, refines=True)
    assert [note.split(" is ")[0] for note in first.notes] == ["model.compile", "the refiner"]
    assert [note.split(" is ")[0] for note in whole.notes] == ["model.compile"]
    prompt = [Prompt("p", "a red dog")]
    assert not torch.equal(first.generate(prompt, [1])[0], whole.generate(prompt, [1])[0])
