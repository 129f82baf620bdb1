"""What a verb works on is read as `run` reads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from evaluator.demo.quality import held_out
from evaluator.errors import ConfigError, InputError
from evaluator.probing.images import embed_images, fit_images, load_images
from evaluator.probing.inputs import ModelRequest, ProbedModel, load_extractor, load_model
from evaluator.probing.named import open_named

from .conftest import CLIP, DIGITS, IMAGES


def test_a_folder_and_a_configuration_give_the_same_model(digits: ProbedModel, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    record = {
        "name": "mine",
        "model": {"kind": "diffusers", "id": DIGITS},
        "generation": {"steps": 8, "guidance_scale": 3.0},
        "prompts": {"source": "never-read.txt"},
    }
    path.write_text(yaml.safe_dump(record))
    configured = load_model(ModelRequest(str(path), device="cpu"))
    assert configured.name == "mine"
    assert digits.name == "stable-diffusion"
    assert configured.model.fingerprint == digits.model.fingerprint
    changed = load_model(ModelRequest(str(path), device="cpu", steps=3, overrides=("name=other",)))
    assert (changed.name, changed.config.generation.steps) == ("other", 3)


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_images_that_exist_already_are_no_model(suffix: str, tmp_path: Path):
    path = tmp_path / f"images.{suffix}"
    path.write_text(
        json.dumps({"name": "x", "model": {"kind": "images"}, "prompts": {"source": IMAGES}})
    )
    with pytest.raises(ConfigError, match="expected a model that generates, got images"):
        load_model(ModelRequest(str(path), device="cpu"))


def test_images_come_in_order_with_their_captions(digits: ProbedModel):
    split = held_out()
    found = load_images(IMAGES, digits, limit=5)
    assert [prompt.text for prompt in found.prompts] == list(split.captions[:5])
    assert torch.equal(torch.stack(found.images), split.images[:5])
    assert found.refused == ()


def test_prompts_without_images_are_refused(digits: ProbedModel, prompts_file: Path):
    with pytest.raises(InputError, match="expected images, got prompts without any"):
        load_images(str(prompts_file), digits, limit=2)


def test_a_broken_image_is_left_out_and_named(digits: ProbedModel, tmp_path: Path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    found = load_images(str(tmp_path), digits, limit=9)
    assert len(found.images) == 1
    assert found.refused[0].startswith("b")


def test_images_are_cropped_to_the_middle_and_resized():
    left_red = torch.zeros(3, 8, 32, dtype=torch.uint8)
    left_red[0, :, :8] = 255
    left_red[2, :, 24:] = 255
    (fitted,) = fit_images([left_red], height=4, width=4)
    assert fitted.shape == (3, 4, 4)
    assert not fitted.any(), "the middle 8x8 is black"
    same = torch.arange(48, dtype=torch.uint8).view(3, 4, 4)
    assert torch.equal(fit_images([same], height=4, width=4)[0], same)


def test_an_extractor_takes_the_weights_it_is_given(digits: ProbedModel):
    clip = load_extractor("clip", digits, weights=CLIP)
    images = held_out().images[:3]
    features = embed_images(clip, images)
    one = clip.embed(clip.preprocess(images[1])[None])["features"][0].numpy()
    assert features.dtype == np.float64
    np.testing.assert_allclose(features[1], one, atol=1e-5)


@pytest.mark.parametrize(
    ("verb", "option", "value", "says"),
    [
        ("denoise", "--timesteps", "99999", "--timesteps: input should be less than"),
        ("denoise", "--dtype", "fp16", "--dtype: input should be 'float32'"),
        ("jacobian", "--steps", "99999", "--steps: input should be less than"),
    ],
)
def test_a_value_that_no_configuration_takes_is_said_of_its_option(
    call: Callable[..., Any], verb: str, option: str, value: str, says: str
):
    ended = call("probe", verb, DIGITS, option, value)
    told = " ".join(ended.err.split())
    assert ended.status == 2
    assert says in told
    assert "configuration has" not in told
    assert "generation.steps" not in told


def test_other_faults_keep_their_names_beside_those_of_options():
    wrong = ModelRequest(DIGITS, dtype="fp16", overrides=("generation.hieght=8",))
    with pytest.raises(ConfigError) as caught:
        open_named(wrong)
    assert "the configuration has 2 faults" in str(caught.value)
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        "--dtype", "generation.hieght",
    ]  # fmt: skip


def test_a_folder_of_runs_names_the_runs_in_it(call: Callable[..., Any], tmp_path: Path):
    (tmp_path / "notes.txt").write_text("none of them")
    ended = call("probe", "anatomy", tmp_path)
    assert ended.status == 2
    assert "got a folder with neither; check the path" in " ".join(ended.err.split())
    for name in ("b", "a"):
        (tmp_path / name / "init").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"model_index\.json.* runs in it: \S+/a, \S+/b$"):
        open_named(ModelRequest(str(tmp_path)))
