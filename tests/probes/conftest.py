"""Tiny randomly initialised pipelines, and a model around each that generates one batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.utils import logging as diffusers_logging
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from evaluator.records import Prompt

NUM_POSITIONS = 12
WORDS = ("a", "red", "blue", "seven", "on", "dog", "and", "fox")
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

diffusers_logging.set_verbosity_error()


def build_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-pair scheme: a few whole words, everything else letter by letter."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            pair = (parts[-2], parts[-1])
            parts[-2:] = ["".join(pair)]
            if pair not in merges:
                merges.append(pair)
                pieces.append(parts[-1])
    tokens = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=NUM_POSITIONS)


def build_text_encoder(tokenizer: CLIPTokenizer, *, projects: bool = False) -> Any:
    """Two layers of width 32."""
    settings = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=NUM_POSITIONS,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(settings).eval()


def build_unet(text_width: int, **settings: Any) -> UNet2DConditionModel:
    """Cross-attention at two resolutions, 4 heads; 8x8 latents."""
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=8,
        **settings,
    )
    # Initial weights give nearly uniform attention; sharper queries tell mistakes apart.
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if ".attn2.to_q" in name or ".attn2.to_k" in name:
                parameter.mul_(6)
    return unet.eval()


def build_vae() -> AutoencoderKL:
    """16x16 images to 8x8 latents."""
    return AutoencoderKL(
        sample_size=16,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    ).eval()


def build_stable_diffusion(pipeline: Any = StableDiffusionPipeline) -> Any:
    """Stable Diffusion in miniature."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    return pipeline(
        vae=build_vae(),
        text_encoder=build_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=build_unet(32),
        scheduler=DDIMScheduler(**SD_BETAS, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build_stable_diffusion_xl() -> Any:
    """Stable Diffusion XL in miniature: two text encoders, joined along the features."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    return StableDiffusionXLPipeline(
        vae=build_vae(),
        text_encoder=build_text_encoder(tokenizer),
        text_encoder_2=build_text_encoder(tokenizer, projects=True),
        tokenizer=tokenizer,
        tokenizer_2=build_tokenizer(),
        unet=build_unet(
            64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
        ),
        scheduler=EulerDiscreteScheduler(**SD_BETAS, steps_offset=1),
        add_watermarker=False,
    )


def build_unconditional(kind: str) -> Any:
    """A pixel-space UNet without text in a DDPM or DDIM pipeline."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    ).eval()
    if kind == "ddpm":
        return DDPMPipeline(unet=unet, scheduler=DDPMScheduler())
    return DDIMPipeline(unet=unet, scheduler=DDIMScheduler())


class TinyModel:
    """Calls its pipeline once for a batch; one generator for each sample."""

    def __init__(self, pipeline: Any, *, steps: int = 6, guidance: float = 5.0) -> None:
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline
        self.steps = steps
        self.guidance = guidance

    def generate(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """(B, H, W, 3) float32; the seed of a sample is taken from its key."""
        generators = [torch.Generator().manual_seed(int(prompt.key)) for prompt in prompts]
        settings: dict[str, Any] = {"num_inference_steps": self.steps, "output_type": "np"}
        if hasattr(self.pipeline, "tokenizer"):
            settings |= {"guidance_scale": self.guidance, "height": 16, "width": 16}
            settings["prompt"] = [prompt.text or "" for prompt in prompts]
            if any(prompt.negative_prompt for prompt in prompts) and self.guidance > 1:
                settings["negative_prompt"] = [prompt.negative_prompt or "" for prompt in prompts]
        else:
            settings["batch_size"] = len(prompts)
        images = self.pipeline(generator=generators, **settings).images
        return torch.from_numpy(images)


def make_prompts(*texts: str, negative: str | None = None) -> list[Prompt]:
    """Prompts with keys 0, 1, …; equal texts get different keys, and so other noise."""
    return [Prompt(str(i), text, negative_prompt=negative) for i, text in enumerate(texts)]


class Run:
    """What one observed batch gave."""

    def __init__(self, images: torch.Tensor, tables: dict[str, pa.Table]) -> None:
        self.images = images
        self.tables = tables

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        """Rows whose columns equal `where`."""
        rows: list[dict[str, Any]] = self.tables[table].to_pylist()
        return [row for row in rows if all(row[name] == value for name, value in where.items())]


def observe(model: TinyModel, prompts: Sequence[Prompt], *probes: Any) -> Run:
    """Generate one batch under probes, as a runner does."""
    with contextlib.ExitStack() as stack:
        positions = range(len(prompts))
        observations = [
            stack.enter_context(probe.attach(model, prompts, positions)) for probe in probes
        ]
        images = model.generate(prompts)
    tables: dict[str, pa.Table] = {}
    for observation in observations:
        tables |= observation.tables()
    return Run(images, tables)


@pytest.fixture(scope="session")
def shared_pipeline() -> Any:
    """One Stable Diffusion in miniature, for tests that leave it as it was."""
    return build_stable_diffusion()


@pytest.fixture
def tiny() -> Any:
    """The builders, so that tests need no import from here."""

    class Builders:
        model = TinyModel
        stable_diffusion = staticmethod(build_stable_diffusion)
        stable_diffusion_xl = staticmethod(build_stable_diffusion_xl)
        unconditional = staticmethod(build_unconditional)
        tokenizer: Callable[[], CLIPTokenizer] = staticmethod(build_tokenizer)
        prompts = staticmethod(make_prompts)
        observe = staticmethod(observe)
        betas = SD_BETAS

    return Builders
