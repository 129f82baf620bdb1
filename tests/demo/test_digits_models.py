"""The shipped models of the digits world: small, offline, and good enough to mean something."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, StableDiffusionPipeline
from torch import Tensor
from transformers import AutoProcessor, CLIPModel, CLIPTokenizer

from evaluator.demo import architecture
from evaluator.demo.classifier import DigitsExtractor
from evaluator.demo.digits import (
    BACKGROUNDS,
    COLOURS,
    RGB,
    TEST_PARQUET,
    WORDS,
    all_captions,
    caption,
)
from evaluator.demo.quality import (
    CLIP,
    PIPELINE,
    WEIGHTS,
    HeldOut,
    accuracy,
    clip_cosines,
    held_out,
    load_pipeline,
    read,
    sample,
)

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def split() -> HeldOut:
    return held_out()


@pytest.fixture(scope="module")
def right_cosines(split: HeldOut) -> Tensor:
    return clip_cosines(split.images, split.captions)


@pytest.fixture(scope="module")
def pipeline() -> DiffusionPipeline:
    return load_pipeline()


@pytest.fixture(scope="module")
def extractor() -> DigitsExtractor:
    return DigitsExtractor()


def test_shipped_files_are_few_megabytes_and_hold_no_code() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt"}
    size = sum(path.stat().st_size for path in [*files, TEST_PARQUET])
    assert size < 12 * MEBIBYTE, f"{size / MEBIBYTE:.1f} MiB"


def test_shipped_configs_name_no_path_of_the_machine_that_trained() -> None:
    for path in WEIGHTS.rglob("*.json"):
        assert "_name_or_path" not in path.read_text(), path


def test_pipeline_is_a_stable_diffusion_in_float32(pipeline: DiffusionPipeline) -> None:
    assert isinstance(pipeline, StableDiffusionPipeline)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert pipeline.safety_checker is None
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        assert {p.dtype for p in part.parameters()} == {torch.float32}


def test_default_dtype_of_every_loader_is_float32() -> None:
    loaded = DiffusionPipeline.from_pretrained(PIPELINE, local_files_only=True)
    assert loaded.text_encoder.dtype == loaded.unet.dtype == loaded.vae.dtype == torch.float32
    assert CLIPModel.from_pretrained(CLIP, local_files_only=True).dtype == torch.float32


def test_every_word_of_a_caption_is_one_token(pipeline: DiffusionPipeline) -> None:
    assert pipeline.tokenizer.model_max_length == architecture.NUM_TOKENS
    for text in all_captions():
        assert len(pipeline.tokenizer(text)["input_ids"]) == len(text.split()) + 2


@pytest.mark.parametrize("directory", [CLIP, PIPELINE / "tokenizer"])
def test_shipped_vocabulary_is_what_the_code_learns(directory: Path) -> None:
    vocab = json.loads((directory / "vocab.json").read_text())
    assert vocab == architecture.tokenizer().get_vocab()
    assert vocab == CLIPTokenizer.from_pretrained(directory, local_files_only=True).get_vocab()


def test_tokenizer_reads_words_it_never_saw(pipeline: DiffusionPipeline) -> None:
    ids = pipeline.tokenizer("a möbius")["input_ids"]
    assert pipeline.tokenizer.decode(ids, skip_special_tokens=True).strip() == "a möbius"


def test_sample_does_not_depend_on_its_batch(pipeline: DiffusionPipeline, split: HeldOut) -> None:
    keys, captions = split.keys[:3], split.captions[:3]
    together = sample(captions, keys, pipeline=pipeline, steps=4)
    alone = sample(captions[2:], keys[2:], pipeline=pipeline, steps=4)
    assert (together[2].int() - alone[0].int()).abs().max() <= 1


def test_vae_restores_held_out_images(pipeline: DiffusionPipeline, split: HeldOut) -> None:
    images = split.images.float() / 127.5 - 1
    with torch.inference_mode():
        latents = pipeline.vae.encode(images).latent_dist.mode()
        restored = pipeline.vae.decode(latents).sample
    assert latents.shape[1:] == (4, 8, 8)
    assert (latents * pipeline.vae.config.scaling_factor).std() == pytest.approx(1.0, abs=0.1)
    assert (restored - images).abs().mean() < 0.03


def test_extractor_reads_held_out_images(extractor: DigitsExtractor, split: HeldOut) -> None:
    shares = accuracy(split.images, split.captions, extractor)
    assert shares.digit >= 0.97
    assert shares.colour >= 0.99
    assert shares.background >= 0.99


def test_extractor_declares_what_it_returns(extractor: DigitsExtractor, split: HeldOut) -> None:
    batch = torch.stack([extractor.preprocess(image) for image in split.images[:5]])
    outputs = extractor.embed(batch)
    assert next(iter(extractor.outputs)) == "features"
    assert extractor.logits in extractor.outputs
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        name: (5, width) for name, width in extractor.outputs.items()
    }
    assert {value.dtype for value in outputs.values()} == {torch.float32}


def test_extractor_takes_images_of_any_size(extractor: DigitsExtractor, split: HeldOut) -> None:
    large = split.images[:20].repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert extractor.preprocess(large[0]).shape == (3, 32, 32)
    assert read(large, extractor) == read(split.images[:20], extractor)


def test_extractor_fingerprint_tells_weights_and_dtype_apart(
    extractor: DigitsExtractor, tmp_path: Path
) -> None:
    shipped = WEIGHTS / "classifier"
    for path in shipped.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert len(extractor.fingerprint) == 64
    assert DigitsExtractor(weights=str(tmp_path)).fingerprint == extractor.fingerprint
    assert DigitsExtractor(dtype="bfloat16").fingerprint != extractor.fingerprint
    config = tmp_path / "config.json"
    config.write_text(config.read_text() + "\n")
    assert DigitsExtractor(weights=str(tmp_path)).fingerprint != extractor.fingerprint


def test_extractor_refuses_an_unknown_dtype() -> None:
    with pytest.raises(ValueError, match="one of float32, float16, bfloat16; got 'float64'"):
        DigitsExtractor(dtype="float64")


def test_clip_processor_loads_as_auto_processor(split: HeldOut) -> None:
    processor = AutoProcessor.from_pretrained(CLIP, local_files_only=True)
    pixels = processor(images=list(split.images[:2]), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, split.images[:2].float() / 127.5 - 1, atol=1e-5, rtol=0)


def _other_digit(words: list[str]) -> str:
    return caption((_digit(words) + 3) % 10, words[1], words[5])


def _other_colour(words: list[str]) -> str:
    free = [c for c in COLOURS if c not in (words[1], words[5])]
    return caption(_digit(words), free[0], words[5])


def _other_background(words: list[str]) -> str:
    free = [b for b in BACKGROUNDS if b not in (words[1], words[5])]
    return caption(_digit(words), words[1], free[0])


def _digit(words: list[str]) -> int:
    return WORDS.index(words[2])


@pytest.mark.parametrize("change", [_other_digit, _other_colour, _other_background])
def test_clip_prefers_the_right_caption(
    split: HeldOut, right_cosines: Tensor, change: Callable[[list[str]], str]
) -> None:
    wrong = [change(text.split()) for text in split.captions]
    assert (right_cosines > clip_cosines(split.images, wrong)).float().mean() >= 0.95


def test_clip_tells_which_colour_is_which(split: HeldOut) -> None:
    both = [{"red", "blue"} == {t.split()[1], t.split()[5]} for t in split.captions]
    images = split.images[torch.tensor(both)]
    captions = [text for text, wanted in zip(split.captions, both, strict=True) if wanted]
    swapped = [caption(_digit(w), w[5], w[1]) for w in map(str.split, captions)]
    assert len(captions) >= 10
    assert (clip_cosines(images, captions) > clip_cosines(images, swapped)).all()


def test_clip_score_falls_when_captions_are_shuffled(split: HeldOut, right_cosines: Tensor) -> None:
    shifted = split.captions[1:] + split.captions[:1]
    assert right_cosines.mean() > clip_cosines(split.images, shifted).mean() + 0.3


def _assert_as_prompted(images: Tensor, captions: tuple[str, ...], least: float) -> None:
    shares = accuracy(images, captions)
    assert min(shares[:3]) >= least, shares


def test_samples_show_what_was_prompted(pipeline: DiffusionPipeline, split: HeldOut) -> None:
    keys, captions = split.keys[::6], split.captions[::6]
    images = sample(captions, keys, pipeline=pipeline)
    assert len(images) == 60
    _assert_as_prompted(images, captions, 0.95)
    shifted = captions[1:] + captions[:1]
    assert clip_cosines(images, captions).mean() > clip_cosines(images, shifted).mean() + 0.3
    # A flat picture would fool a colour judge; a stroke has both of its colours.
    words = captions[0].split()
    spread = images[0].float().std(dim=(1, 2)).max()
    assert spread > 0.1 * max(abs(a - b) for a, b in zip(RGB[words[1]], RGB[words[5]], strict=True))


@pytest.mark.slow
def test_samples_of_all_held_out_captions_show_what_was_prompted(
    pipeline: DiffusionPipeline, split: HeldOut
) -> None:
    images = sample(split.captions, split.keys, pipeline=pipeline)
    _assert_as_prompted(images, split.captions, 0.95)
