"""Tiny models of transformers with seeded random weights, saved as their authors would save them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SQUARE = {"height": 32, "width": 32}


def picture(*, seed: int, height: int = 48, width: int = 70) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


IMAGES = [picture(seed=1), picture(seed=2, height=300, width=260), picture(seed=3)]


def save(folder: Path, build: Callable[[], Any], *parts: Any) -> Path:
    """Save a model built under a fixed seed, and its processors."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = build()
        with torch.no_grad():
            for parameter in model.parameters():
                # Zeros and ones of a fresh model would hide what depends on them.
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    return folder


def dinov2(folder: Path) -> Path:
    settings = {**SMALL, "mlp_ratio": 2, "image_size": 56, "patch_size": 14}
    settings.pop("intermediate_size")
    return save(folder, lambda: transformers.Dinov2Model(transformers.Dinov2Config(**settings)))


def dinov3(folder: Path) -> Path:
    config = transformers.DINOv3ViTConfig(
        **SMALL, image_size=32, patch_size=8, num_register_tokens=4
    )
    return save(
        folder,
        lambda: transformers.DINOv3ViTModel(config),
        transformers.DINOv3ViTImageProcessor(size=SQUARE),
    )


def vit(folder: Path, *, pooler: bool = True) -> Path:
    config = transformers.ViTConfig(**SMALL, image_size=32, patch_size=8)
    return save(
        folder,
        lambda: transformers.ViTModel(config, add_pooling_layer=pooler),
        transformers.ViTImageProcessor(size=SQUARE),
    )


def resnet(folder: Path) -> Path:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    return save(
        folder,
        lambda: transformers.ResNetModel(config),
        transformers.ViTImageProcessor(size=SQUARE),
    )


def bert(folder: Path) -> Path:
    config = transformers.BertConfig(**SMALL, vocab_size=50)
    return save(folder, lambda: transformers.BertModel(config))


def tokenizer() -> Any:
    """Words, an end sign, lower case: a stand-in for SigLIP's."""
    words = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "seven", "on", "background"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_input_names=["input_ids"],
        model_max_length=64,
    )


def tokenizer2() -> Any:
    """Letters, as SigLIP 2's own class cuts a vocabulary without merges."""
    signs = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    return transformers.Siglip2Tokenizer(
        {sign: i for i, sign in enumerate(signs)}, [], padding_side="right", model_max_length=64
    )


TEXT = {**SMALL, "vocab_size": 100, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 1}  # fmt: skip


def siglip(folder: Path, **vision: Any) -> Path:
    config = transformers.SiglipConfig(
        text_config=TEXT, vision_config={**SMALL, "image_size": 32, "patch_size": 8, **vision}
    )
    return save(
        folder,
        lambda: transformers.SiglipModel(config),
        transformers.SiglipImageProcessor(size=SQUARE),
        tokenizer(),
    )


def siglip2(folder: Path) -> Path:
    config = transformers.Siglip2Config(
        text_config=TEXT, vision_config={**SMALL, "num_patches": 16, "patch_size": 8}
    )
    return save(
        folder,
        lambda: transformers.Siglip2Model(config),
        transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16),
        tokenizer2(),
    )
