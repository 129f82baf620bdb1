"""Walks between seeds and images: their ends are the model's own images, their jumps are seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from evaluator.errors import ConfigError, ProbeError
from evaluator.probing.images import load_images
from evaluator.probing.inputs import ModelRequest, ProbedModel
from evaluator.probing.interpolate import probe_interpolate
from evaluator.probing.paths import first_step_of, image_ends, seed_ends, walk
from evaluator.records import Prompt

from .conftest import CLIP, DIGITS, IMAGES

PROMPT = Prompt("p", "a red seven on a blue background", class_label=1)


def test_the_ends_of_a_walk_are_the_images_of_its_seeds(digits: ProbedModel):
    made = digits.model.generate([PROMPT] * 2, [0, 0], [5, 6])
    ends = seed_ends(digits, PROMPT, [5, 6])
    walked = walk(digits, PROMPT, ends, mode="slerp", weights=[0.0, 0.5, 1.0])
    assert walked.norm_ratio == pytest.approx(1.0, abs=0.05)
    for image, own in ((walked.images[0], made[0]), (walked.images[-1], made[1])):
        assert (image.int() - own.int()).abs().max() <= 1
    assert not torch.equal(walked.images[1], walked.images[0])


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux", "lumina2", "dit", "ddim"])
def test_every_family_walks_from_its_own_noise(name: str, family: Any):
    probed = family(name, steps=3)
    made = probed.model.generate([PROMPT] * 2, [0, 0], [5, 6])
    ends = seed_ends(probed, PROMPT, [5, 6])
    walked = walk(probed, PROMPT, ends, mode="slerp", weights=[0.0, 1.0])
    difference = (walked.images.int() - torch.stack(made).int()).abs().max()
    assert difference <= 1, f"{name}: {difference} grey levels"


def test_little_noise_leaves_the_images_as_they_are(digits: ProbedModel):
    shown = load_images(IMAGES, digits, limit=2)
    begin = first_step_of(digits, 0.13)  # 1 of 8 steps
    assert begin == 7
    ends = image_ends(digits, shown.images, seed=0)
    prompt = Prompt("p", "")
    walked = walk(digits, prompt, ends, mode="slerp", weights=[0.0, 1.0], begin=begin)
    near = [
        (image.int() - own.int()).abs().float().mean()
        for image, own in zip(walked.images, shown.images)
    ]
    far = [
        (image.int() - own.int()).abs().float().mean()
        for image, own in zip(walked.images, shown.images[::-1])
    ]
    assert max(near) < 10, near
    assert min(far) > 2 * max(near), (near, far)


def test_a_strength_outside_its_range_is_refused(digits: ProbedModel):
    assert first_step_of(digits, 1.0) == 0
    assert first_step_of(digits, 0.5) == 4
    with pytest.raises(
        ConfigError, match="--strength: expected more than 0 and at most 1, got 1.5"
    ):
        first_step_of(digits, 1.5)


def test_backgrounds_that_differ_make_the_walk_jump(tmp_path: Path):
    request = ModelRequest(DIGITS, device="cpu", steps=8, guidance_scale=3.0)
    # images 4 and 5 are a red four on black and a red nine on blue
    found = probe_interpolate(
        request, images=IMAGES, pairs=3, extractor="digits", output=tmp_path / "out"
    )
    by = {(item.mode, item.space): item for item in found.summaries}
    assert by["slerp", "pixels"].num_jumps >= 1
    assert by["slerp", "digits"].ratio.mean > 1.0
    assert by["lerp", "pixels"].norm_ratio < 0.8 < by["slerp", "pixels"].norm_ratio
    rows = pq.read_table(tmp_path / "out" / "interpolate.parquet").to_pylist()
    assert len(rows) == 3 * 2 * 8
    pair = [row for row in rows if row["pair"] == 2 and row["mode"] == "slerp"]
    assert sum(row["jump_pixels"] for row in pair) >= 1
    assert (tmp_path / "out" / "strip.png").is_file()


def test_what_a_walk_needs_is_asked_for(unconditional: Path, tmp_path: Path):
    request = ModelRequest(DIGITS, device="cpu", steps=2)
    with pytest.raises(ConfigError, match="--prompt: expected a prompt for a text-to-image model"):
        probe_interpolate(request, output=tmp_path / "out")
    with pytest.raises(ConfigError, match="--frames: expected at least 3"):
        probe_interpolate(request, frames=2, output=tmp_path / "out")
    unknown = ModelRequest(
        DIGITS,
        device="cpu",
        steps=4,
        overrides=("model.scheduler={name: DDIMInverseScheduler}",),
    )
    with pytest.raises(ProbeError, match="DDIMInverseScheduler"):
        probe_interpolate(unknown, images=IMAGES, pairs=1, output=tmp_path / "out")
    found = probe_interpolate(
        ModelRequest(str(unconditional), device="cpu", steps=2), pairs=2, frames=3,
        output=tmp_path / "out",
    )  # fmt: skip
    assert found.num_pairs == 2


def test_the_command_prints_a_line_a_way_and_space(call: Any, tmp_path: Path):
    ended = call(
        "probe", "interpolate", DIGITS, "--prompt", "a red seven on a blue background",
        "--pairs", 2, "--frames", 3, "--steps", 3, "--extractor", "clip", "--weights", CLIP,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert ended.status == 0
    assert [line.split()[:2] for line in ended.out.splitlines()[2:6]] == [
        ["slerp", "pixels"], ["lerp", "pixels"], ["slerp", "clip"], ["lerp", "clip"],
    ]  # fmt: skip
    assert "a jump is a step longer than 3 median steps of its path" in ended.out
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["provenance"]["extractor"]["name"] == "clip"
