"""How each model of the digits world learns: its data, its loss, how long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPModel

from evaluator.demo import architecture
from evaluator.demo.classifier import DigitsClassifier
from evaluator.demo.digits import BACKGROUNDS, COLOURS, PAIRS, RGB, SIZE, all_captions, load
from evaluator.demo.fitting import Progress, Schedule, fit

EMPTY_SHARE = 0.1
"""Share of captions left empty, for classifier-free guidance."""
OWN_TINT_SHARE = 0.5
"""Share of the diffusion model's batches in the tint an image has in the data set; the rest are
re-tinted, so that colours bind in combinations a digit was rarely seen in."""


class Batch(NamedTuple):
    """Training images and what is on them."""

    images: Tensor
    """(N, 3, 32, 32) float32 from -1 to 1."""
    digits: Tensor
    """(N,) int64."""
    pairs: Tensor
    """(N,) int64, into `PAIRS`."""


class Tints:
    """The training digits in random tints, a little off centre."""

    def __init__(self, device: torch.device) -> None:
        digits = load("train")
        self.ink = torch.from_numpy(digits.ink).to(device)
        self.digits = torch.tensor(digits.digits, device=device)
        own = zip(digits.colours, digits.backgrounds, strict=True)
        self.own_pairs = torch.tensor([PAIRS.index(pair) for pair in own], device=device)
        palette = np.array([[RGB[word] for word in pair] for pair in PAIRS], dtype=np.float32)
        self.palette = torch.from_numpy(palette).to(device)

    def paint(self, ink: Tensor, pairs: Tensor) -> Tensor:
        """(N, 32, 32) ink and (N,) pairs => (N, 3, 32, 32) float32 from -1 to 1."""
        stroke, ground = self.palette[pairs].unbind(1)
        blended = torch.lerp(ground[..., None, None], stroke[..., None, None], ink[:, None])
        return blended.round() / 127.5 - 1.0

    def draw(self, size: int, generator: torch.Generator, *, shift: int) -> Batch:
        """A batch of random digits in random tints, moved by up to `shift` pixels."""
        device = self.ink.device
        index = torch.randint(len(self.ink), (size,), generator=generator, device=device)
        pairs = torch.randint(len(PAIRS), (size,), generator=generator, device=device)
        ink = F.pad(self.ink[index], [shift] * 4)
        if shift:
            moves = torch.randint(2 * shift + 1, (2, size, 1), generator=generator, device=device)
            pixels = torch.arange(SIZE, device=device)
            rows, columns = moves[0] + pixels, moves[1] + pixels
            samples = torch.arange(size, device=device)[:, None, None]
            ink = ink[samples, rows[:, :, None], columns[:, None, :]]
        return Batch(self.paint(ink, pairs), self.digits[index], pairs)


def classifier(*, work: Path, device: torch.device) -> tuple[DigitsClassifier, Progress]:
    """Cross-entropy of three heads; noise on the images, for what it judges is generated."""
    model = architecture.seeded(DigitsClassifier).to(device)
    tints = Tints(device)
    words = torch.tensor([(COLOURS.index(c), BACKGROUNDS.index(b)) for c, b in PAIRS])
    words = words.to(device)

    def loss(generator: torch.Generator) -> Tensor:
        batch = tints.draw(128, generator, shift=2)
        strength = torch.rand((128, 1, 1, 1), generator=generator, device=device) * 0.15
        noise = torch.randn(batch.images.shape, generator=generator, device=device)
        outputs = model(batch.images + strength * noise)
        colours, backgrounds = words[batch.pairs].unbind(1)
        return (
            F.cross_entropy(outputs["digit_logits"], batch.digits, label_smoothing=0.05)
            + 0.3 * F.cross_entropy(outputs["colour_logits"], colours, label_smoothing=0.05)
            + 0.3 * F.cross_entropy(outputs["background_logits"], backgrounds, label_smoothing=0.05)
        )

    schedule = Schedule(steps=1800, learning_rate=2e-3, decay=0.99)
    return model, fit("classifier", model, loss, schedule=schedule, work=work)


def clip(*, work: Path, device: torch.device) -> tuple[CLIPModel, Progress]:
    """Contrastive, both ways (Radford et al. 2021), with every equal caption a positive."""
    model = architecture.clip().to(device)
    tints = Tints(device)
    tokens = _tokenized(all_captions(), device)

    def loss(generator: torch.Generator) -> Tensor:
        batch = tints.draw(160, generator, shift=2)
        index = batch.digits * len(PAIRS) + batch.pairs
        outputs = model(pixel_values=batch.images, **{k: v[index] for k, v in tokens.items()})
        same = (index[:, None] == index[None, :]).float()
        targets = same / same.sum(1, keepdim=True)
        logits = outputs.logits_per_image
        return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2

    schedule = Schedule(steps=1500, learning_rate=1.5e-3, decay=0.99, weight_decay=0.05)
    return model, fit("clip", model, loss, schedule=schedule, work=work)


def vae(*, work: Path, device: torch.device) -> tuple[AutoencoderKL, Progress]:
    """Absolute error of the pixels, and a little Kullback-Leibler divergence of the latents."""
    model = architecture.vae().to(device)
    tints = Tints(device)

    def loss(generator: torch.Generator) -> Tensor:
        images = tints.draw(64, generator, shift=0).images
        posterior = model.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator, device=device)
        restored = model.decode(posterior.mean + posterior.std * noise).sample
        divergence: Tensor = posterior.kl().mean() / posterior.mean[0].numel()
        return F.l1_loss(restored, images) + 1e-3 * divergence

    schedule = Schedule(steps=1800, learning_rate=2e-3, decay=0.99)
    progress = fit("vae", model, loss, schedule=schedule, work=work)
    latents = encode_all(model, tints)
    # One number, as diffusers has it: latents are multiplied by it to have unit deviation.
    model.register_to_config(scaling_factor=round(1.0 / float(latents.mean.float().std()), 4))
    return model, progress


class Latents(NamedTuple):
    """The posterior of every training image in every tint."""

    mean: Tensor
    """(N, tints, 4, 8, 8) float16."""
    std: Tensor
    """(N, tints, 4, 8, 8) float16."""


@torch.inference_mode()
def encode_all(model: AutoencoderKL, tints: Tints) -> Latents:
    """Encode once what the diffusion model then draws from at every step."""
    means, stds = [], []
    for ink in torch.split(tints.ink, 16):
        pairs = torch.arange(len(PAIRS), device=ink.device).repeat(len(ink))
        images = tints.paint(ink.repeat_interleave(len(PAIRS), 0), pairs)
        posterior = model.encode(images).latent_dist
        means.append(posterior.mean.half().unflatten(0, (len(ink), len(PAIRS))))
        stds.append(posterior.std.half().unflatten(0, (len(ink), len(PAIRS))))
    return Latents(torch.cat(means), torch.cat(stds))


def diffusion(
    autoencoder: AutoencoderKL, *, work: Path, device: torch.device
) -> tuple[nn.ModuleDict, Progress]:
    """Mean squared error of the noise (Ho et al. 2020, eq. 14), text encoder and UNet together."""
    parts = {"text_encoder": architecture.text_encoder(), "unet": architecture.unet()}
    model = nn.ModuleDict(parts).to(device)
    tints = Tints(device)
    latents = encode_all(autoencoder.to(device), tints)
    tokens = _tokenized((*all_captions(), ""), device)["input_ids"]
    alphas = architecture.scheduler().alphas_cumprod.to(device)
    size = 64

    def draw(bound: int, generator: torch.Generator) -> Tensor:
        return torch.randint(bound, (size,), generator=generator, device=device)

    def loss(generator: torch.Generator) -> Tensor:
        index, pairs = draw(len(tints.ink), generator), draw(len(PAIRS), generator)
        own, empty = torch.rand((2, size), generator=generator, device=device)
        pairs = torch.where(own < OWN_TINT_SHARE, tints.own_pairs[index], pairs)
        captions = tints.digits[index] * len(PAIRS) + pairs
        captions = torch.where(empty < EMPTY_SHARE, len(tokens) - 1, captions)
        shape = (2, size, *latents.mean.shape[2:])
        spread, noise = torch.randn(shape, generator=generator, device=device)
        clean = latents.mean[index, pairs].float() + latents.std[index, pairs].float() * spread
        clean = clean * autoencoder.config.scaling_factor
        times = draw(len(alphas), generator)
        signal = alphas[times][:, None, None, None]
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        text = model["text_encoder"](tokens[captions]).last_hidden_state
        return F.mse_loss(model["unet"](noisy, times, text).sample, noise)

    schedule = Schedule(steps=4000, learning_rate=1e-3, warmup=200)
    return model, fit("diffusion", model, loss, schedule=schedule, work=work)


def _tokenized(captions: tuple[str, ...], device: torch.device) -> dict[str, Tensor]:
    """Captions => `input_ids` and `attention_mask`, each (N, 16) int64."""
    encode: Callable[..., dict[str, Tensor]] = architecture.tokenizer()
    length = architecture.NUM_TOKENS
    encoded = encode(list(captions), padding="max_length", max_length=length, return_tensors="pt")
    return {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}
