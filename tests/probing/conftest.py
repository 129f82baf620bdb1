"""The shipped digits model, loaded once, and how a verb is called in a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evaluator.cli import main
from evaluator.probing.inputs import (
    ModelRequest,
    ProbedImages,
    ProbedModel,
    load_images,
    load_model,
)

DIGITS = "package://evaluator/demo/weights/stable-diffusion"
CLIP = "package://evaluator/demo/weights/clip"
IMAGES = "package://evaluator/demo/data/test.parquet"
SIZE = ("generation.height=32", "generation.width=32")


class Ended:
    """How a call of the command line ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def run(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Ended(int(left.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def digits() -> ProbedModel:
    """The shipped pipeline; tests leave it as it was."""
    return load_model(ModelRequest(DIGITS, device="cpu", steps=8, guidance_scale=3.0))


@pytest.fixture
def digit_images(digits: ProbedModel) -> ProbedImages:
    return load_images(IMAGES, digits, limit=12)


@pytest.fixture(scope="session")
def unconditional(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pixel-space DDPM folder without text or autoencoder, randomly initialised."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16),
            layers_per_block=1, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"), norm_num_groups=4, attention_head_dim=4,
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "ddpm"
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
    return folder
