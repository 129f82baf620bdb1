"""Families that share the tests' smallest parts: UNets, and the class-conditional DiT."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

from tests.tiny.encoders import build_text_encoder
from tests.tiny.tokenizers import build_tokenizer

SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


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


def build_vae(*, num_halvings: int = 1, latent_channels: int = 4, **settings: Any) -> AutoencoderKL:
    """16x16 images to 8x8 latents, unless there are more halvings."""
    blocks = num_halvings + 1
    return AutoencoderKL(
        sample_size=16,
        block_out_channels=(8,) * blocks,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=latent_channels,
        norm_num_groups=4,
        **settings,
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


def build_refiner() -> StableDiffusionXLImg2ImgPipeline:
    """SDXL's refiner in miniature: the second text encoder alone, and a wish for beauty."""
    tokenizer = build_tokenizer()
    torch.manual_seed(2)
    return StableDiffusionXLImg2ImgPipeline(
        vae=build_vae(),
        text_encoder=None,
        text_encoder_2=build_text_encoder(tokenizer, projects=True),
        tokenizer=None,
        tokenizer_2=tokenizer,
        unet=build_unet(
            32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=5 * 8 + 32,
        ),
        scheduler=EulerDiscreteScheduler(**SD_BETAS, steps_offset=1),
        requires_aesthetics_score=True,
        add_watermarker=False,
    )


def build_dit() -> DiTPipeline:
    """A class-conditional DiT; it hands its scheduler no generator, so DDIM."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        sample_size=8,
        patch_size=2,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_embeds_ada_norm=1000,
    ).eval()
    return DiTPipeline(transformer, build_vae(), DDIMScheduler(clip_sample=False))


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
