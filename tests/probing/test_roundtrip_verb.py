"""The digits autoencoder keeps its digits, and a wrong scaling factor is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from diffusers import AutoencoderKL

from evaluator.demo.quality import PIPELINE, accuracy, held_out
from evaluator.errors import ConfigError
from evaluator.probes.latent_space import LatentSpace
from evaluator.probing.inputs import ModelRequest, ProbedImages, ProbedModel
from evaluator.probing.roundtrip import probe_roundtrip, roundtrip

from .conftest import DIGITS, IMAGES


def test_the_autoencoder_is_the_one_called_by_hand(digits: ProbedModel, digit_images: ProbedImages):
    decoded = roundtrip(digits, LatentSpace(digits.pipeline), digit_images.images)
    vae = AutoencoderKL.from_pretrained(PIPELINE, subfolder="vae", local_files_only=True)
    pixels = torch.stack(digit_images.images).float() / 127.5 - 1
    with torch.no_grad():
        again = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    expected = ((again.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert (expected.int() - decoded.again.int()).abs().max() <= 1


def test_digits_come_back_readable_and_at_unit_scale(tmp_path: Path, digits: ProbedModel):
    found = probe_roundtrip(
        ModelRequest(DIGITS, device="cpu"), images=IMAGES, limit=60, output=tmp_path / "out"
    )
    assert found.psnr.mean > 25
    assert found.psnr.interval is not None
    assert found.psnr.interval.low < found.psnr.mean < found.psnr.interval.high
    assert found.scale.std == pytest.approx(1.0, abs=0.2)
    assert found.warnings == ()
    assert found.unscaled_mse.mean > found.mse.mean
    rows = pq.read_table(tmp_path / "out" / "roundtrip.parquet").to_pydict()
    assert sum(rows["mse"]) / 60 == pytest.approx(found.mse.mean)
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["result"]["scale"]["std"] == pytest.approx(found.scale.std)
    split = held_out()
    again = roundtrip(digits, LatentSpace(digits.pipeline), list(split.images[:60])).again
    assert accuracy(again, split.captions[:60]).digit > 0.9


def test_a_wrong_scaling_factor_is_found(tmp_path: Path):
    folder = tmp_path / "wrong"
    shutil.copytree(PIPELINE, folder)
    path = folder / "vae" / "config.json"
    config = json.loads(path.read_text())
    right = config["scaling_factor"]
    path.write_text(json.dumps({**config, "scaling_factor": 0.18215}))
    found = probe_roundtrip(
        ModelRequest(str(folder), device="cpu"), images=IMAGES, limit=20, output=tmp_path / "out"
    )
    assert found.warnings[0].startswith("the scaled latents have a standard deviation of 0.2")
    assert found.scale.fitting_factor == pytest.approx(right, rel=0.25)


@pytest.mark.parametrize("name", ["sd3", "flux", "sana", "qwen-image"])
def test_other_autoencoders_come_round(name: str, family: Any):
    probed = family(name)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (2, 3, 40, 40), dtype=torch.uint8, generator=draw)
    decoded = roundtrip(probed, LatentSpace(probed.pipeline), list(images))
    assert decoded.again.shape == decoded.images.shape
    assert torch.isfinite(decoded.latents).all()


def test_a_pixel_model_has_nothing_to_encode(unconditional: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="ddpm \\(DDPMPipeline\\) has none and works on pixels"):
        probe_roundtrip(
            ModelRequest(str(unconditional), device="cpu"), images=IMAGES, output=tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_lost(call: Any, tmp_path: Path):
    ended = call(
        "probe", "roundtrip", DIGITS, "--images", IMAGES, "--limit", 4, "--output", tmp_path / "out"
    )
    assert ended.status == 0
    assert "4 images through AutoencoderKL, latents 4×8×8" in ended.out
    assert "dB" in ended.out
    assert (tmp_path / "out" / "worst.png").is_file()
