"""What the models of the digits world are made of: real diffusers and transformers classes.

Every builder draws its initial weights from a seed of its own and leaves the global generator
as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
)

from evaluator.demo.digits import SIZE, all_captions

NUM_TOKENS = 16
"""Longest caption in tokens, start and end included; ours have nine."""
TEXT_WIDTH = 96
LATENT_SIZE = SIZE // 4

Module = TypeVar("Module", bound=nn.Module)


def seeded(build: Callable[[], Module], seed: int = 0) -> Module:
    """Build a module whose initial weights depend on `seed` only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def tokenizer() -> CLIPTokenizer:
    """Byte-pair encoding learnt from the captions: each word they use is one token."""
    vocab, merges = _vocabulary()
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=NUM_TOKENS)


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token → index, and the pairs to merge, in order."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet = letters + [f"{letter}</w>" for letter in letters]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(all_captions(), trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    pieces = alphabet + ["".join(pair) for pair in merges]
    tokens = [*list(dict.fromkeys(pieces)), "<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges


def _text_settings(words: CLIPTokenizer) -> dict[str, object]:
    return {
        "vocab_size": len(words),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 4 * TEXT_WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": NUM_TOKENS,
        "projection_dim": 64,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }


def text_encoder() -> CLIPTextModel:
    """The text encoder of the diffusion model, 0.3 M parameters, trained with its UNet."""
    return seeded(lambda: CLIPTextModel(CLIPTextConfig(**_text_settings(tokenizer()))))


def vae() -> AutoencoderKL:
    """Images (3, 32, 32) to latents (4, 8, 8) and back."""
    return seeded(
        lambda: AutoencoderKL(
            sample_size=SIZE,
            block_out_channels=(16, 32, 48),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=8,
        )
    )


def unet() -> UNet2DConditionModel:
    """The denoiser: cross-attention at 8x8 and at 4x4, four heads each, 3.5 M parameters."""
    return seeded(
        lambda: UNet2DConditionModel(
            sample_size=LATENT_SIZE,
            in_channels=4,
            out_channels=4,
            block_out_channels=(64, 112),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=4,  # in this class the number of heads
            norm_num_groups=16,
        )
    )


def scheduler() -> DDIMScheduler:
    """Stable Diffusion 1's noise schedule, predicting the noise."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def pipeline(
    autoencoder: AutoencoderKL, encoder: CLIPTextModel, denoiser: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """Put the parts together; there is nothing here that a safety checker could look for."""
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=encoder,
        tokenizer=tokenizer(),
        unet=denoiser,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def clip() -> CLIPModel:
    """A CLIP of 32x32 images in patches of 4x4, each a pixel of the source."""
    vision = {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": SIZE,
        "patch_size": 4,
        "projection_dim": 64,
    }
    text = _text_settings(tokenizer())
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)
    return seeded(lambda: CLIPModel(config))


def save_clip_processor(directory: Path) -> None:
    """Save what turns images and captions into the CLIP's inputs: pixels from -1 to 1."""
    images = CLIPImageProcessor(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    CLIPProcessor(image_processor=images, tokenizer=tokenizer()).save_pretrained(directory)
    images.save_pretrained(directory)  # transformers 4 looks for a file of its own
    save_vocabulary(directory)


def save_vocabulary(directory: Path) -> None:
    """Write the tokenizer's files as transformers 4 reads them; version 5 has its own."""
    vocab, merges = _vocabulary()
    (directory / "vocab.json").write_text(json.dumps(vocab) + "\n")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n")


def shrink(directory: Path) -> None:
    """Halve the saved weights under `directory`: float16 on disk, float32 when loaded.

    The configurations keep saying float32, so that loaders which follow them compute in it;
    paths of the machine that trained are taken out.
    """
    for path in directory.rglob("*.safetensors"):
        tensors = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in load_file(path).items()
        }
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors makes files that only their owner may read
    for path in directory.rglob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
