"""Image models of transformers as extractors: the library's own numbers, and wrong models named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
import transformers
from PIL import Image
from torchvision.transforms import InterpolationMode

from evaluator.errors import ConfigError, InputError
from evaluator.features.vision import Dinov2Extractor, Dinov3Extractor, VisionExtractor
from evaluator.protocols import FeatureExtractor, TextExtractor
from tests.features import tiny_models as tiny
from tests.features.tiny_models import IMAGES

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pillow(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def outputs(folder: Path, pixels: torch.Tensor) -> object:
    """What transformers itself gives."""
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.inference_mode():
        return model(pixel_values=pixels)


def features(extractor: VisionExtractor, images: list[torch.Tensor]) -> torch.Tensor:
    got = extractor.embed(torch.stack([extractor.preprocess(image) for image in images]))
    assert set(got) == set(extractor.outputs) == {"features"}
    assert got["features"].shape == (len(images), extractor.outputs["features"])
    assert got["features"].dtype == torch.float32
    return got["features"]


def as_dgm_eval(image: torch.Tensor) -> torch.Tensor:
    steps = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize((224, 224), InterpolationMode.BICUBIC),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(MEAN, STD),
        ]
    )
    return steps(pillow(image))


def as_edm2(image: torch.Tensor) -> torch.Tensor:
    x = torch.nn.functional.interpolate(
        image[None].to(torch.float32), size=(224, 224), mode="bicubic", antialias=True
    )
    x = x / 255
    x = x - torch.tensor(MEAN).reshape(1, -1, 1, 1)
    return (x / torch.tensor(STD).reshape(1, -1, 1, 1))[0]


@pytest.mark.parametrize(("resize", "expected"), [("pil", as_dgm_eval), ("torch", as_edm2)])
def test_dinov2_sees_what_the_published_evaluations_show_it(
    tmp_path: Path, resize: str, expected: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    extractor = Dinov2Extractor(id=str(tiny.dinov2(tmp_path)), resize=resize)
    for image in IMAGES:
        assert torch.equal(extractor.preprocess(image), expected(image))
    output = outputs(tmp_path, torch.stack([expected(image) for image in IMAGES]))
    assert torch.equal(features(extractor, IMAGES), output.last_hidden_state[:, 0])
    assert output.last_hidden_state.std() > 0.01


def test_dinov3_takes_its_own_processor_and_the_first_token(tmp_path: Path) -> None:
    extractor = Dinov3Extractor(id=str(tiny.dinov3(tmp_path)))
    processor = transformers.DINOv3ViTImageProcessor.from_pretrained(tmp_path)
    pixels = processor([pillow(image) for image in IMAGES], return_tensors="pt")["pixel_values"]
    assert torch.equal(torch.stack([extractor.preprocess(image) for image in IMAGES]), pixels)
    expected = outputs(tmp_path, pixels).last_hidden_state[:, 0]
    assert torch.equal(features(extractor, IMAGES), expected)


def test_any_model_gives_the_pooling_asked_for(tmp_path: Path) -> None:
    tiny.vit(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    pixels = processor([pillow(image) for image in IMAGES], return_tensors="pt")["pixel_values"]
    output = outputs(tmp_path, pixels)
    expected = {
        None: output.pooler_output,
        "pooler": output.pooler_output,
        "cls": output.last_hidden_state[:, 0],
        "mean": output.last_hidden_state.mean(1),
    }
    prints = set()
    for pooling, values in expected.items():
        extractor = VisionExtractor(id=str(tmp_path), pooling=pooling)
        assert torch.equal(features(extractor, IMAGES), values)
        prints.add(extractor.fingerprint)
    assert len(prints) == 3


def test_a_network_of_maps_is_pooled_over_its_places(tmp_path: Path) -> None:
    tiny.resnet(tmp_path)
    pooled = VisionExtractor(id=str(tmp_path))
    mean = VisionExtractor(id=str(tmp_path), pooling="mean")
    assert pooled.outputs == {"features": 16}
    torch.testing.assert_close(features(pooled, IMAGES), features(mean, IMAGES))
    with pytest.raises(ConfigError, match=r"can give \(pooler, mean\), got 'cls'"):
        VisionExtractor(id=str(tmp_path), pooling="cls")


def test_a_pooler_without_weights_is_not_used(tmp_path: Path) -> None:
    tiny.vit(tmp_path, pooler=False)
    extractor = VisionExtractor(id=str(tmp_path))
    cls = VisionExtractor(id=str(tmp_path), pooling="cls")
    assert torch.equal(features(extractor, IMAGES), features(cls, IMAGES))
    with pytest.raises(ConfigError, match=r"can give \(cls, mean\), got 'pooler'"):
        VisionExtractor(id=str(tmp_path), pooling="pooler")


@pytest.mark.parametrize("build", [tiny.dinov2, tiny.dinov3])
def test_a_row_does_not_depend_on_its_companions(
    tmp_path: Path, build: Callable[[Path], Path]
) -> None:
    build(tmp_path)
    kind = Dinov2Extractor if build is tiny.dinov2 else Dinov3Extractor
    extractor = kind(id=str(tmp_path))
    assert isinstance(extractor, FeatureExtractor)
    assert not isinstance(extractor, TextExtractor)
    first = features(extractor, [IMAGES[0], IMAGES[1]])
    second = features(extractor, [IMAGES[0], IMAGES[2]])
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_smaller_type_gives_float32_close_by(tmp_path: Path, dtype: str) -> None:
    exact = Dinov2Extractor(id=str(tiny.dinov2(tmp_path)))
    low = Dinov2Extractor(id=str(tmp_path), dtype=dtype)
    want = features(exact, IMAGES)
    assert (features(low, IMAGES) - want).norm() < 0.05 * want.norm()
    assert low.fingerprint != exact.fingerprint
    assert exact.fingerprint != Dinov2Extractor(id=str(tmp_path), resize="torch").fingerprint
    assert exact.fingerprint == Dinov2Extractor(id=str(tmp_path), name="other").fingerprint


def test_a_model_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    dinov2, dinov3 = tiny.dinov2(tmp_path / "2"), tiny.dinov3(tmp_path / "3")
    with pytest.raises(ConfigError, match="type 'dinov3_vit', got 'dinov2'"):
        Dinov3Extractor(id=str(dinov2))
    with pytest.raises(ConfigError, match="type 'dinov2' or .*, got 'dinov3_vit'"):
        Dinov2Extractor(id=str(dinov3))
    with pytest.raises(ConfigError, match="takes images only, got 'siglip'.*kind: siglip"):
        VisionExtractor(id=str(tiny.siglip(tmp_path / "siglip")))
    with pytest.raises(ConfigError, match="takes images only, got 'bert'"):
        VisionExtractor(id=str(tiny.bert(tmp_path / "bert")))


def test_options_are_checked_by_name(tmp_path: Path) -> None:
    folder = str(tiny.dinov2(tmp_path))
    with pytest.raises(ConfigError, match="resize to be one of 'pil', 'torch'; got 'bilinear'"):
        Dinov2Extractor(id=folder, resize="bilinear")
    with pytest.raises(
        ConfigError, match="pooling to be one of 'pooler', 'cls', 'mean'; got 'max'"
    ):
        Dinov2Extractor(id=folder, pooling="max")
    with pytest.raises(ConfigError, match="expected the model's `id` with kind 'vision', got none"):
        VisionExtractor(name="mine")
    with pytest.raises(TypeError, match="resize"):
        VisionExtractor(id=folder, resize="pil")  # type: ignore[call-arg]


def test_a_processor_that_keeps_the_aspect_is_refused(tmp_path: Path) -> None:
    tiny.vit(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    settings |= {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 32},
        "do_center_crop": False,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"one size, got \(3, 32, 48\) for a wide image"):
        VisionExtractor(id=str(tmp_path))


def strip_layer(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "layernorm" in name)
    save_file({n: t for n, t in tensors.items() if n != name}, folder / "model.safetensors")


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def bring_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(
        "import pathlib; pathlib.Path(__file__).with_name('ran').touch()"
    )


def drop_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def pickle_instead(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def spoil_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            strip_layer,
            r"expected weights for every parameter, got none for 1 of them \(.*layernorm",
        ),
        (cut_short, "expected a vision model with its image processor, got: .*header"),
        (
            bring_code,
            "expected a vision model with its image processor, got: a model with code of its own, which is not run",
        ),
        (drop_processor, "expected a vision model with its image processor, got: "),
        (pickle_instead, r"expected weights as .safetensors, got .bin"),
        (spoil_config, "expected a vision model with its image processor, got: .*not a valid JSON"),
    ],
)
def test_damaged_weights_are_refused_shortly(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    tiny.vit(tmp_path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        VisionExtractor(id=str(tmp_path))
    assert str(caught.value).startswith(str(tmp_path))
    assert len(str(caught.value)) < 800
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists(), "code of the folder ran"
