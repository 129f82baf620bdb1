"""Families whose denoiser is a transformer that reads text."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKLQwenImage,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

from tests.tiny.encoders import build_gemma, build_qwen, build_t5, build_text_encoder
from tests.tiny.tokenizers import (
    build_gemma_tokenizer,
    build_qwen_tokenizer,
    build_t5_tokenizer,
    build_tokenizer,
)
from tests.tiny.unets import build_vae

LATENT_SHIFT = {"scaling_factor": 1.5305, "shift_factor": 0.0609}


def build_stable_diffusion_3() -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5 in miniature: two CLIPs and a T5, and one dual-attention layer.

    Its inpainting pipeline counts on 16 channels.
    """
    first, second, third = build_tokenizer(), build_tokenizer(pad_token="!"), build_t5_tokenizer()
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=64,
        caption_projection_dim=16,
        pooled_projection_dim=64,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ).eval()
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=build_vae(
            latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, **LATENT_SHIFT
        ),
        text_encoder=build_text_encoder(first, projects=True),
        tokenizer=first,
        text_encoder_2=build_text_encoder(second, projects=True),
        tokenizer_2=second,
        text_encoder_3=build_t5(third, width=64),
        tokenizer_3=third,
    )


def build_flux(*, guidance_embeds: bool = True) -> FluxPipeline:
    """Flux in miniature: joint layers, then single-stream ones; guidance is an embedding."""
    clip, t5 = build_tokenizer(), build_t5_tokenizer()
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=build_vae(use_quant_conv=False, use_post_quant_conv=False, **LATENT_SHIFT),
        text_encoder=build_text_encoder(clip),
        tokenizer=clip,
        text_encoder_2=build_t5(t5),
        tokenizer_2=t5,
        transformer=transformer,
    )


def build_pixart_alpha(pipeline: Any = PixArtAlphaPipeline) -> Any:
    """PixArt-α in miniature: cross-attention to a masked T5 text."""
    tokenizer = build_t5_tokenizer()
    torch.manual_seed(0)
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        patch_size=2,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=16,
        caption_channels=32,
        use_additional_conditions=False,
    ).eval()
    return pipeline(
        tokenizer=tokenizer,
        text_encoder=build_t5(tokenizer),
        vae=build_vae(),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


def build_pixart_sigma() -> PixArtSigmaPipeline:
    """PixArt-Σ in miniature."""
    pipeline: PixArtSigmaPipeline = build_pixart_alpha(PixArtSigmaPipeline)
    return pipeline


def build_sana() -> SanaPipeline:
    """Sana in miniature: linear self-attention, cross-attention to Gemma, a deep autoencoder."""
    tokenizer = build_gemma_tokenizer()
    torch.manual_seed(0)
    transformer = SanaTransformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=32,
    ).eval()
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        scaling_factor=0.41407,
    ).eval()
    return SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=build_gemma(tokenizer),
        vae=vae,
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )


def build_lumina2() -> Lumina2Pipeline:
    """Lumina Image 2 in miniature; its pipeline counts on an eightfold autoencoder."""
    tokenizer = build_gemma_tokenizer()
    torch.manual_seed(0)
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(64, 32, 32),
        cap_feat_dim=32,
    ).eval()
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=build_vae(
            num_halvings=3, use_quant_conv=False, use_post_quant_conv=False, **LATENT_SHIFT
        ),
        text_encoder=build_gemma(tokenizer),
        tokenizer=tokenizer,
    )


def build_qwen_image() -> QwenImagePipeline:
    """Qwen-Image in miniature: joint attention, a video autoencoder with one frame."""
    tokenizer = build_qwen_tokenizer()
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    ).eval()
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.1, 0.2, 0.0],
        latents_std=[2.0, 1.5, 2.5, 1.0],
    ).eval()
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=build_qwen(tokenizer),
        tokenizer=tokenizer,
        transformer=transformer,
    )
