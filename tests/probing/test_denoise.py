"""Real images noised: what the digits model says, against its own network called by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluator.errors import ConfigError, InputError, ProbeError
from evaluator.locations import expand
from evaluator.probes.denoising import denoise_along
from evaluator.probes.latent_space import LatentSpace, to_pixels
from evaluator.probes.steering import without_class
from evaluator.probing.denoise import conditions, denoise_images, probe_denoise
from evaluator.probing.inputs import ModelRequest, ProbedImages, ProbedModel, load_model
from evaluator.records import Prompt
from evaluator.seeds import stream_seed

from .conftest import DIGITS, IMAGES


@pytest.fixture(scope="module")
def bare() -> ProbedModel:
    return load_model(ModelRequest(DIGITS, device="cpu", steps=4, guidance_scale=1.0))


def test_the_error_is_that_of_the_network_called_by_hand(
    bare: ProbedModel, digit_images: ProbedImages
):
    found = denoise_images(bare, digit_images, digit_images.prompts)
    pipe = bare.pipeline
    space = LatentSpace(pipe)
    x0 = space.scale(space.encode(to_pixels(torch.stack(digit_images.images))))
    noise = torch.stack(
        [
            torch.randn(
                x0.shape[1:],
                generator=torch.Generator().manual_seed(stream_seed(0, "denoise", p.key)),
            )
            for p in digit_images.prompts
        ]
    )
    pipe.scheduler.set_timesteps(4)
    assert [at.timestep for at in found] == [float(t) for t in pipe.scheduler.timesteps]
    tokens = pipe.tokenizer(
        [p.text for p in digit_images.prompts], padding="max_length", truncation=True,
        max_length=pipe.tokenizer.model_max_length, return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        text = pipe.text_encoder(tokens.input_ids)[0]
        for at in found:
            t = int(at.timestep)
            x = pipe.scheduler.add_noise(x0, noise, torch.tensor([t]))
            predicted = pipe.unet(x, t, encoder_hidden_states=text).sample
            expected = (predicted - noise).square().flatten(1).mean(1)
            torch.testing.assert_close(at.noise_mse.float(), expected, rtol=1e-3, atol=1e-5)


def test_a_caption_helps_most_where_there_is_most_noise(
    bare: ProbedModel, digit_images: ProbedImages
):
    told = denoise_images(bare, digit_images, digit_images.prompts)
    untold = denoise_images(bare, digit_images, conditions(bare, digit_images, unconditional=True))
    ratios = [float(u.x0_mse.mean() / t.x0_mse.mean()) for t, u in zip(told, untold)]
    assert ratios[0] > 1.5, ratios
    assert ratios[0] > ratios[-1], ratios
    noise_errors = [float(at.noise_mse.mean()) for at in told]
    assert noise_errors == sorted(noise_errors), "noise is harder to see where there is less of it"


@pytest.mark.parametrize(
    "name", ["sd", "sdxl", "sd3", "flux", "pixart-alpha", "sana", "lumina2", "dit", "ddpm"]
)
def test_every_family_is_measured(name: str, family: Any):
    probed = family(name, steps=3, guidance=1.0)
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8, generator=draw)
    prompts = (Prompt("a", "a red dog", class_label=1), Prompt("b", "a fox", class_label=2))
    shown = ProbedImages(prompts, tuple(images), "x", ())
    found = denoise_images(probed, shown, prompts)
    assert len(found) == 3
    last = found[-1]
    assert torch.isfinite(last.noise_mse).all()
    assert last.x0.dtype == torch.uint8
    assert last.x0.shape[:2] == (2, 3)
    assert last.level.log_snr > found[0].level.log_snr


def test_the_null_class_stands_for_no_condition(family: Any):
    probed = family("dit")
    shown = ProbedImages((Prompt("a", None, class_label=3),), (), "x", ())
    (prompt,) = conditions(probed, shown, unconditional=True)
    assert prompt.class_label == 0, "which the denoiser is not told"


def test_images_without_captions_are_refused_for_a_text_model(bare: ProbedModel):
    shown = ProbedImages((Prompt("a"),), (torch.zeros(3, 8, 8, dtype=torch.uint8),), "x", ())
    with pytest.raises(InputError, match="expected captions for a text-to-image model, got none"):
        conditions(bare, shown, unconditional=False)


def test_an_image_does_not_depend_on_its_batch(tmp_path: Path):
    request = ModelRequest(DIGITS, device="cpu")
    many = probe_denoise(request, images=IMAGES, limit=18, timesteps=2, output=tmp_path / "many")
    few = probe_denoise(request, images=IMAGES, limit=17, timesteps=2, output=tmp_path / "few")
    rows = [
        {(row["key"], row["timestep"]): row["noise_mse"] for row in pq.read_table(folder / "denoise.parquet").to_pylist()}
        for folder in (many.folder, few.folder)
    ]  # fmt: skip
    assert len(rows[1]) == 34
    for key, value in rows[1].items():
        assert rows[0][key] == pytest.approx(value, rel=1e-4)


def test_a_model_that_takes_no_condition_is_not_said_to_have_one(
    unconditional: Path, tmp_path: Path
):
    found = probe_denoise(
        ModelRequest(str(unconditional), device="cpu"), images=IMAGES, limit=1, timesteps=[500.0],
        output=tmp_path / "out",
    )  # fmt: skip
    assert not found.conditioned
    assert "1 image, without any condition" in found.lines()[0]
    (level,) = found.levels
    assert (level.timestep, level.noise_mse.interval) == (500.0, None)


def test_the_command_prints_a_line_a_level(call: Any, tmp_path: Path):
    ended = call(
        "probe", "denoise", DIGITS, "--images", IMAGES, "--limit", 3, "--timesteps", "900,100",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert ended.status == 0
    lines = ended.out.splitlines()
    assert lines[0] == "stable-diffusion: 3 images, given what is said of them"
    assert [line.split()[0] for line in lines[2:4]] == ["900", "100"]
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["files"] == ["denoise.parquet", "x0.png", "errors.png"]
    first = record["result"]["levels"][0]["noise_mse"]
    assert first["interval"]["low"] < first["mean"] < first["interval"]["high"]
    wrong = call("probe", "denoise", DIGITS, "--images", IMAGES, "--timesteps", "few")
    assert wrong.status == 2
    assert "expected a number of timesteps (10) or a list" in wrong.err


def test_no_class_is_the_one_behind_the_last(family: Any) -> None:
    probed = family("dit", guidance=1.0)
    null = probed.pipeline.transformer.config.num_embeds_ada_norm
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)

    def asked(label: int) -> torch.Tensor:
        prompts = [Prompt("a", None, class_label=label)] * 2
        found = denoise_along(
            probed.pipeline, lambda: probed.model.generate(prompts, [0] * 2, [1, 2]), x0, noise
        )
        return torch.stack([at.noise_mse for at in found])

    with torch.no_grad():
        told, expected = asked(0), asked(null)
        with without_class(probed.pipeline):
            untold = asked(0)
        assert torch.equal(asked(0), told), "and it is told again"
    assert torch.equal(untold, expected)
    assert not torch.equal(untold, told)


def test_a_class_is_needed_or_left_out_in_words(family: Any) -> None:
    probed = family("dit", guidance=1.0)
    shown = ProbedImages((Prompt("a", "a dog"),), (), "x", ())
    with pytest.raises(InputError, match="expected class labels for a class-conditional model"):
        conditions(probed, shown, unconditional=False)
    with (
        pytest.raises(ProbeError, match="knows no class that stands for none"),
        without_class(family("sd").pipeline),
    ):
        pass


def test_grey_models_see_the_mean_of_the_channels() -> None:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16),
        layers_per_block=1, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, norm_num_groups=4,
    )  # fmt: skip
    space = LatentSpace(DDPMPipeline(unet, DDPMScheduler()))
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = space.encode(pixels)
    assert torch.allclose(seen[:, 0], (pixels[:, 0] + pixels[:, 1] + pixels[:, 2]) / 3)
    assert torch.equal(space.decode(seen)[:, 2], seen[:, 0])


@pytest.mark.parametrize("asked", [5000, (-1.0, 3.0), (20.0, 1001.0)])
def test_timesteps_that_are_not_there_are_refused(asked: Any, tmp_path: Path) -> None:
    request = ModelRequest(DIGITS, device="cpu")
    with pytest.raises(ConfigError, match="--timesteps: expected"):
        probe_denoise(request, images=IMAGES, limit=1, timesteps=asked, output=tmp_path / "out")


@pytest.mark.parametrize("value", [torch.nan, 0.0])
def test_a_broken_decoder_is_said_to_draw_nothing_and_spoils_no_number(
    value: float, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(expand(DIGITS), broken)
    (file,) = (broken / "vae").glob("*.safetensors")
    tensors = load_file(file)
    for part in ("weight", "bias"):
        tensors[f"decoder.conv_out.{part}"] *= value
    save_file(tensors, file, metadata={"format": "pt"})
    found, sound = (
        probe_denoise(
            ModelRequest(model, device="cpu"), images=IMAGES, limit=2, timesteps=2,
            output=tmp_path / name,
        )
        for name, model in (("found", str(broken)), ("sound", DIGITS))
    )  # fmt: skip
    (note,) = found.notes
    assert note.startswith("4 of the 4 pictures in x0.png show one colour alone")
    assert not sound.notes
    assert found.levels == sound.levels


def test_broken_weights_are_named_and_leave_no_result(tmp_path: Path) -> None:
    for part, said in (("unet", "predictions that are finite"), ("vae", "Expected finite latents")):
        broken = tmp_path / part
        shutil.copytree(expand(DIGITS), broken)
        (file,) = (broken / part).glob("*.safetensors")
        tensors = load_file(file)
        name = "encoder.conv_in.weight" if part == "vae" else "conv_in.weight"
        save_file({**tensors, name: tensors[name] * torch.nan}, file, metadata={"format": "pt"})
        with pytest.raises(ProbeError, match=said):
            probe_denoise(
                ModelRequest(str(broken), device="cpu"), images=IMAGES, limit=1, timesteps=2,
                output=tmp_path / "out",
            )  # fmt: skip
        assert not (tmp_path / "out").exists()
