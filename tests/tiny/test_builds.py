"""The tiny builds: the same each time, the same when loaded, and their text matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline

from tests.tiny import FAMILIES, TEXTLESS, call_arguments, saved
from tests.tiny.tokenizers import QWEN_TEMPLATE, build_qwen_tokenizer

TEXTS = ["a red dog", "a fox and a dog"]


def images(pipeline: Any, family: str, texts: list[str]) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 7)]
    called = call_arguments(family, texts)
    made = pipeline(**called, num_inference_steps=2, output_type="np", generator=generators)
    return torch.from_numpy(made.images)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_build_gives_the_same_images_when_saved_and_loaded(family: str, tmp_path: Path) -> None:
    torch.manual_seed(123)  # what was drawn before does not matter
    built = FAMILIES[family]()
    folder = saved(family, tmp_path)
    loaded = DiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    assert type(loaded) is type(built)
    made = images(built, family, TEXTS)
    assert torch.equal(made, images(loaded, family, TEXTS))
    # One seed for both samples: what differs is due to the text or the class.
    difference = (made[0] - made[1]).abs().max()
    assert (difference < 1e-5) == (family in {"ddpm", "ddim"})


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - TEXTLESS))
def test_every_text_encoder_knows_its_tokenizers_words(family: str) -> None:
    pipeline = FAMILIES[family]()
    for suffix in ("", "_2", "_3"):
        tokenizer = getattr(pipeline, f"tokenizer{suffix}", None)
        if tokenizer is None:
            continue
        pieces = [piece.strip("▁Ġ").removesuffix("</w>") for piece in tokenizer.tokenize(TEXTS[0])]
        assert pieces == TEXTS[0].split()
        encoder = getattr(pipeline, f"text_encoder{suffix}")
        assert encoder.get_input_embeddings().num_embeddings == len(tokenizer)


def test_the_template_of_qwen_image_has_as_many_tokens_as_the_pipeline_drops() -> None:
    assert len(build_qwen_tokenizer()(QWEN_TEMPLATE).input_ids) == 34
