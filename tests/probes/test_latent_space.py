"""Pixels and latents: scaled as each family does, and back again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLQwenImage
from diffusers.configuration_utils import FrozenDict

from evaluator.errors import ProbeError
from evaluator.probes.latent_space import (
    LatentSpace,
    image_size,
    scale_factor,
    to_images,
    to_pixels,
)

PIXELS = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)


def space_of(vae: Any) -> LatentSpace:
    return LatentSpace(SimpleNamespace(vae=vae))


def tiny_kl(**settings: Any) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        sample_size=16, block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        **settings,
    ).eval()  # fmt: skip


def test_shift_and_scale_are_those_of_stable_diffusion_3():
    vae = tiny_kl(scaling_factor=1.5, shift_factor=0.25)
    space = space_of(vae)
    raw = space.encode(PIXELS)
    with torch.no_grad():
        expected = (vae.encode(PIXELS).latent_dist.mode() - 0.25) * 1.5
    torch.testing.assert_close(space.scale(raw), expected)
    torch.testing.assert_close(space.unscale(space.scale(raw)), raw)


def test_a_mean_and_std_a_channel_are_taken_away():
    vae = tiny_kl(
        scaling_factor=2.0, latents_mean=[1.0, 0.0, 0.0, -1.0], latents_std=[2.0, 1.0, 1.0, 0.5]
    )
    scaled = space_of(vae).scale(torch.ones(1, 4, 2, 2))
    assert scaled[0, :, 0, 0].tolist() == [0.0, 2.0, 2.0, 8.0]
    torch.testing.assert_close(space_of(vae).unscale(scaled), torch.ones(1, 4, 2, 2))


def test_an_autoencoder_without_distribution_encodes_to_its_latents():
    torch.manual_seed(0)
    vae = AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2,
        encoder_block_types=("ResBlock", "ResBlock"), decoder_block_types=("ResBlock", "ResBlock"),
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()), decoder_qkv_multiscales=((), ()), scaling_factor=0.41,
    ).eval()  # fmt: skip
    space = space_of(vae)
    raw = space.encode(PIXELS)
    assert raw.shape == (2, 4, 8, 8)
    assert space.decode(raw).shape == PIXELS.shape
    assert space.scaling_factor == 0.41


def test_a_video_autoencoder_takes_one_frame():
    torch.manual_seed(0)
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    ).eval()  # fmt: skip
    space = space_of(vae)
    raw = space.encode(PIXELS)
    assert raw.shape == (2, 4, 8, 8)
    assert space.decode(raw).shape == PIXELS.shape


def test_a_pixel_model_works_on_pixels(tiny: Any):
    pipeline = tiny.unconditional("ddpm")
    space = LatentSpace(pipeline)
    assert space.is_pixels
    assert space.encode(PIXELS) is PIXELS
    assert torch.equal(space.scale(PIXELS), PIXELS)
    assert image_size(pipeline) == (8, 8)
    assert scale_factor(pipeline) == 1


def test_sizes_of_a_latent_model(shared_pipeline: Any):
    assert image_size(shared_pipeline) == (16, 16)
    assert scale_factor(shared_pipeline) == 2


def test_images_survive_the_way_to_pixels_and_back():
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    assert torch.equal(to_images(to_pixels(images)), images)


def test_an_unknown_encoding_is_refused():
    class Odd(torch.nn.Module):
        config = FrozenDict({})
        device, dtype = torch.device("cpu"), torch.float32

        def encode(self, pixels: Any) -> Any:
            return pixels

    with pytest.raises(
        ProbeError, match="encode\\(\\) gives a distribution or latents; got Tensor"
    ):
        space_of(Odd()).encode(PIXELS)
