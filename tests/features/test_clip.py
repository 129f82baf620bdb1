"""CLIP as an extractor: what transformers computes, row by row, and where texts are cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from evaluator.demo.quality import CLIP, held_out
from evaluator.errors import InputError
from evaluator.features.clip import ClipExtractor
from evaluator.protocols import FeatureExtractor, TextExtractor


@pytest.fixture(scope="module")
def extractor() -> ClipExtractor:
    return ClipExtractor(id=str(CLIP))


def test_it_keeps_the_protocols(extractor: ClipExtractor) -> None:
    assert isinstance(extractor, FeatureExtractor)
    assert isinstance(extractor, TextExtractor)
    assert extractor.outputs == {"features": 64}


def test_image_and_text_features_are_those_of_transformers(extractor: ClipExtractor) -> None:
    split = held_out()
    images, captions = split.images[:6], list(split.captions[:6])
    ours = extractor.embed(torch.stack([extractor.preprocess(image) for image in images]))
    texts, cut = extractor.embed_text(captions)
    model = CLIPModel.from_pretrained(CLIP, local_files_only=True).eval()
    processor = CLIPProcessor.from_pretrained(CLIP, local_files_only=True)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    inputs = processor(text=captions, images=pictures, return_tensors="pt", padding="max_length")
    with torch.inference_mode():
        expected = model(**inputs)
    normalised = torch.nn.functional.normalize(ours["features"])
    torch.testing.assert_close(normalised, expected.image_embeds, rtol=0, atol=2e-5)
    text = torch.nn.functional.normalize(texts)
    torch.testing.assert_close(text, expected.text_embeds, rtol=0, atol=2e-5)
    assert cut == [False] * 6


def test_a_texts_bits_do_not_depend_on_its_neighbours(extractor: ClipExtractor) -> None:
    short, long = "a red seven", "a red seven on a blue background"
    together, _ = extractor.embed_text([short, long])
    apart, _ = extractor.embed_text([short, short])
    assert torch.equal(together[0], apart[0])


def test_a_long_text_is_cut_and_marked(extractor: ClipExtractor) -> None:
    features, cut = extractor.embed_text(["a red seven", "seven " * 40])
    assert cut == [False, True]
    assert torch.isfinite(features).all()


def test_any_size_is_brought_to_the_networks(extractor: ClipExtractor) -> None:
    wide = torch.zeros(3, 40, 90, dtype=torch.uint8)
    assert extractor.preprocess(wide).shape == (3, 32, 32)


def test_the_fingerprint_knows_weights_and_dtype(extractor: ClipExtractor) -> None:
    assert ClipExtractor(id=str(CLIP), name="other").fingerprint == extractor.fingerprint
    assert ClipExtractor(id=str(CLIP), dtype="bfloat16").fingerprint != extractor.fingerprint


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder with weights or a hub id"):
        ClipExtractor(id=str(tmp_path / "nothing"))
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="expected a CLIP model"):
        ClipExtractor(id=str(tmp_path))
