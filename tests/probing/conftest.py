"""The shipped digits model, loaded once, and how a verb is called in a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evaluator.probing.images import load_images
from evaluator.probing.inputs import ModelRequest, ProbedImages, ProbedModel, load_model

DIGITS = "package://evaluator/demo/weights/stable-diffusion"
CLIP = "package://evaluator/demo/weights/clip"
IMAGES = "package://evaluator/demo/data/test.parquet"
SIZE = ("generation.height=32", "generation.width=32")


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


class FamilyModel:
    """The tiny build of a family, called as its pipeline wants to be."""

    fingerprint = "tiny"

    def __init__(self, family: str, *, steps: int = 4, guidance: float = 3.0) -> None:
        from tests.tiny import FAMILIES

        self.family, self.steps, self.guidance = family, steps, guidance
        self.pipeline = FAMILIES[family]()
        self.pipeline.set_progress_bar_config(disable=True)

    def generate(self, prompts: Any, image_indices: Any, seeds: Any) -> list[Any]:
        import torch

        from tests.tiny import call_arguments

        texts = [prompt.text or "" for prompt in prompts]
        arguments = call_arguments(self.family, texts, guidance=self.guidance)
        if self.family == "lumina2":
            # what its build asks for ends inside the system prompt
            arguments["max_sequence_length"] = 48
        if self.family == "dit":
            arguments["class_labels"] = [prompt.class_label for prompt in prompts]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        made = self.pipeline(
            **arguments, num_inference_steps=self.steps, generator=generators, output_type="np"
        )
        pixels = torch.from_numpy(made.images).permute(0, 3, 1, 2)
        return list((pixels * 255).round().to(torch.uint8))

    def truncated(self, prompts: Any) -> list[bool]:
        return [False] * len(prompts)

    def describe(self) -> dict[str, Any]:
        return {"kind": "tiny", "family": self.family}


@pytest.fixture
def family() -> Callable[..., ProbedModel]:
    """A tiny model of a family, as a verb gets it."""
    from evaluator.config.load import parse_record
    from evaluator.runner.trust import Trust
    from tests.tiny import generation

    def make(name: str, *, steps: int = 4, guidance: float = 3.0) -> ProbedModel:
        record = {
            "name": name,
            "model": {"kind": "diffusers", "id": name},
            "generation": {"steps": steps, "guidance_scale": guidance, **generation(name)},
            "prompts": {"source": "none"},
        }
        config = parse_record(record, where="test")
        model: Any = FamilyModel(name, steps=steps, guidance=guidance)
        return ProbedModel(name, model, config, "cpu", Trust())

    return make
