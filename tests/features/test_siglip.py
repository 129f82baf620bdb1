"""SigLIP as an extractor: images, patches and texts as transformers itself embeds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

from evaluator.errors import ConfigError, InputError
from evaluator.features.siglip import SiglipExtractor
from evaluator.protocols import FeatureExtractor, TextExtractor
from tests.features import tiny_models as tiny
from tests.features.tiny_models import IMAGES

BUILDS = {"siglip": tiny.siglip, "siglip2": tiny.siglip2}
TEXTS = ["a red seven", "A blue seven on a red background"]


@pytest.fixture(scope="module", params=sorted(BUILDS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def extractor(folder: Path) -> SiglipExtractor:
    return SiglipExtractor(id=str(folder))


def test_images_and_texts_are_those_of_transformers(
    folder: Path, extractor: SiglipExtractor
) -> None:
    assert isinstance(extractor, FeatureExtractor)
    assert isinstance(extractor, TextExtractor)
    assert extractor.outputs == {"features": 32}
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in IMAGES]
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding="max_length", max_length=64, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = model(**processor(pictures, return_tensors="pt"), **tokens)
    got = extractor.embed(torch.stack([extractor.preprocess(image) for image in IMAGES]))
    texts, cut = extractor.embed_text(TEXTS)
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(unit(got["features"]), expected.image_embeds, rtol=0, atol=2e-6)
    torch.testing.assert_close(unit(texts), expected.text_embeds, rtol=0, atol=2e-6)
    assert not torch.allclose(expected.image_embeds[0], expected.image_embeds[1], atol=1e-3)
    assert not torch.allclose(expected.text_embeds[0], expected.text_embeds[1], atol=1e-3)
    assert got["features"].dtype == texts.dtype == torch.float32
    assert cut == [False, False]


def test_a_long_text_is_cut_and_marked(extractor: SiglipExtractor) -> None:
    words = " ".join(["seven"] * 80)
    features, cut = extractor.embed_text([words, words + " seven", "a red seven"])
    assert cut == [True, True, False]
    assert torch.equal(features[0], features[1])


def test_rows_do_not_depend_on_their_companions(extractor: SiglipExtractor) -> None:
    inputs = [extractor.preprocess(image) for image in IMAGES]
    first = extractor.embed(torch.stack([inputs[0], inputs[1]]))["features"]
    second = extractor.embed(torch.stack([inputs[0], inputs[2]]))["features"]
    assert torch.equal(first[0], second[0])
    together, _ = extractor.embed_text(TEXTS)
    apart, _ = extractor.embed_text([TEXTS[0], TEXTS[0]])
    assert torch.equal(together[0], apart[0])


def test_a_smaller_type_gives_float32_close_by(folder: Path, extractor: SiglipExtractor) -> None:
    low = SiglipExtractor(id=str(folder), dtype="bfloat16")
    inputs = torch.stack([extractor.preprocess(image) for image in IMAGES])
    exact, got = extractor.embed(inputs)["features"], low.embed(inputs)["features"]
    assert got.dtype == torch.float32
    assert (got - exact).norm() < 0.05 * exact.norm()
    assert low.fingerprint != extractor.fingerprint


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="type 'siglip' or 'siglip2', got 'dinov2'"):
        SiglipExtractor(id=str(tiny.dinov2(tmp_path)))


def without_head(folder: Path) -> None:
    tiny.siglip(folder, vision_use_head=False)


def without_tokenizer(folder: Path) -> None:
    tiny.siglip(folder)
    for path in folder.glob("token*"):
        path.unlink()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (without_head, "expected a SigLIP model with a pooling head, got one without"),
        (
            without_tokenizer,
            "expected a SigLIP model with its image processor and tokenizer, got: no tokenizer_config.json",
        ),
    ],
)
def test_a_model_without_all_its_parts_is_refused(
    tmp_path: Path, build: Callable[[Path], None], message: str
) -> None:
    build(tmp_path)
    with pytest.raises((ConfigError, InputError), match=message):
        SiglipExtractor(id=str(tmp_path))
