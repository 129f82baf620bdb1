"""Reconstruction errors against a peer, and the scale of latents against known ones."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from torchmetrics.functional.image import peak_signal_noise_ratio

from evaluator.probes.latent_space import LatentSpace
from evaluator.probes.roundtrip import latent_scale, reconstruction_errors, scale_warnings


def space(**config: float | list[float]) -> LatentSpace:
    return LatentSpace(SimpleNamespace(vae=SimpleNamespace(config=FrozenDict(config))))


def test_errors_are_those_of_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    images, decoded = torch.randint(0, 256, (2, 5, 3, 8, 8), generator=generator, dtype=torch.uint8)
    errors = reconstruction_errors(images, decoded)
    peer = [
        peak_signal_noise_ratio(b / 255, a / 255, data_range=1.0) for a, b in zip(images, decoded)
    ]
    torch.testing.assert_close(errors.psnr.float(), torch.stack(peer), rtol=1e-5, atol=1e-5)
    expected = [(a.double() - b.double()).div(255).square().mean() for a, b in zip(images, decoded)]
    torch.testing.assert_close(errors.mse, torch.stack(expected))
    assert errors.largest[0] == (images[0].int() - decoded[0].int()).abs().max()


def test_an_image_that_comes_back_as_it_was_has_no_error():
    images = torch.full((1, 3, 4, 4), 7, dtype=torch.uint8)
    mse, psnr, largest = reconstruction_errors(images, images)
    assert (float(mse), float(psnr), float(largest)) == (0.0, float("inf"), 0.0)


def test_latents_at_unit_scale_raise_no_warning():
    latents = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    known = space(scaling_factor=0.18)
    scale = latent_scale(latents, known)
    assert scale.std == pytest.approx(1.0, abs=0.02)
    assert scale.channel_std == pytest.approx([1.0] * 4, abs=0.04)
    assert scale_warnings(scale, known) == ()


def test_a_wrong_factor_and_shift_are_named_with_the_right_ones():
    raw = 5.5 * torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 11.0
    wrong = space(scaling_factor=0.5)
    scale = latent_scale(wrong.scale(raw), wrong)
    assert scale.fitting_factor == pytest.approx(1 / 5.5, rel=0.02)
    of_scale, of_shift = scale_warnings(scale, wrong)
    assert "scaling_factor is 0.5, these images ask for 0.18" in of_scale
    assert "shift_factor is 0, these images ask for 11" in of_shift
    right = space(scaling_factor=1 / 5.5, shift_factor=11.0)
    assert scale_warnings(latent_scale(right.scale(raw), right), right) == ()


def test_where_each_channel_has_a_scale_of_its_own_that_is_what_is_named():
    raw = 5.0 * torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 3.0
    wrong = space(latents_mean=[0.0] * 4, latents_std=[2.0] * 4)
    of_scale, of_mean = scale_warnings(latent_scale(wrong.scale(raw), wrong), wrong)
    assert "these images ask for latents_std 2.51 times as large" in of_scale
    assert "scaling_factor" not in of_scale
    assert "check latents_mean" in of_mean
    right = space(latents_mean=[3.0] * 4, latents_std=[5.0] * 4)
    assert scale_warnings(latent_scale(right.scale(raw), right), right) == ()
