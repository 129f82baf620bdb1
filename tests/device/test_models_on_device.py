"""Models and extractors give on the device what they give on the CPU, to a grey level."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evaluator.config.asked import FeatureConfig
from evaluator.config.schema import (
    DiffusersModelConfig,
    GenerationConfig,
    OptimalDenoiserModelConfig,
)
from evaluator.demo.quality import CLIP
from evaluator.errors import GenerationError
from evaluator.models.diffusers import DiffusersModel
from evaluator.models.optimal_denoiser import optimal_denoiser, optimal_jacobian
from evaluator.models.optimal_model import OptimalDenoiserModel
from evaluator.models.unseeded import global_generator_states
from evaluator.protocols import TextExtractor
from evaluator.records import Prompt
from evaluator.runner.parts import build_extractor
from evaluator.runner.trust import Trust
from tests.device.families import some_now
from tests.device.pretend import NAME, PretendTensor, Watch
from tests.features import tiny_models
from tests.features.random_inception import save_random_inception
from tests.tiny import ARGUMENTS, generation, saved
from tests.tiny.controlnets import build_controlnet
from tests.tiny.unets import build_refiner

NAMES = {name: name for name in ("control", "init", "mask")}
PROMPTS = [
    Prompt("a", "a red dog", class_label=1, attachments=NAMES),
    Prompt("b", "a blue fox", class_label=2, attachments=NAMES),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where checkpoints and what is added to them are saved, once."""
    root = tmp_path_factory.mktemp("checkpoints")
    for family in ("sd", "sd3"):
        build_controlnet(family).save_pretrained(root / f"controlnet-{family}")
    build_refiner().save_pretrained(root / "refiner")
    draw = torch.Generator().manual_seed(0)
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    ranks = {
        f"{layer}.lora_down.weight": torch.randn(2, 16, generator=draw),
        f"{layer}.lora_up.weight": torch.randn(16, 2, generator=draw),
        f"{layer}.alpha": torch.tensor(2.0),
    }
    save_file(ranks, root / "lora.safetensors")
    return root


class Attachments:
    """A random image under every name."""

    def image(self, key: str, *, part: str) -> Tensor:
        draw = torch.Generator().manual_seed(ord(key) + len(part))
        image = torch.randint(256, (3, 16, 16), generator=draw, dtype=torch.uint8)
        return (image > 127).to(torch.uint8) * 255 if part == "mask" else image


def made(family: str, root: Path, device: str, steps: int = 3, **config: Any) -> Tensor:
    """(2, 3, H, W) uint8 of the product's own model."""
    arguments = {**ARGUMENTS.get(family, {}), **config.pop("arguments", {})}
    model = DiffusersModel(
        DiffusersModelConfig(
            kind="diffusers", id=str(saved(family, root)), arguments=arguments, **config
        ),
        GenerationConfig(steps=steps, guidance_scale=3.0, **generation(family)),
        device=device,
        attachments=Attachments(),
    )
    assert model.describe()["device"] == device
    assert model.truncated(PROMPTS) == [False, False]
    images = model.generate(PROMPTS, [0, 0], [7, 8])
    for image in images:
        assert isinstance(image, Tensor), image
        assert not isinstance(image, PretendTensor), "what a model gives lies on the CPU"
    return torch.stack(images)


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("sd", {}),
    "class": ("dit", {}),
    "image": ("sd", {"task": "image-to-image", "arguments": {"strength": 0.7}}),
    "image-flow": ("flux", {"task": "image-to-image", "arguments": {"strength": 0.7}}),
    "mask": ("sdxl", {"task": "inpainting", "arguments": {"strength": 0.7}}),
    "mask-flow": ("sd3", {"task": "inpainting", "arguments": {"strength": 0.7}}),
    "control": ("sd", {"controlnet": {"id": "controlnet-sd", "scale": 0.8}}),
    "control-image": (
        "sd", {"controlnet": {"id": "controlnet-sd"}, "task": "image-to-image"},
    ),
    "lora": ("sd", {"loras": [{"id": "lora.safetensors", "scale": 0.5}]}),
    "refiner": ("sdxl", {"refiner": {"id": "refiner", "start": 0.5}}),
    "half": ("sd", {"dtype": "bfloat16"}),
    "sliced": ("sd", {"vae_slicing": True, "vae_tiling": True}),
    "backend": ("flux", {"attention_backend": "_native_math"}),
    "skipping": ("sd", {"arguments": {"clip_skip": 1}}),
    "ancestral": ("sd", {"scheduler": {"name": "EulerAncestralDiscreteScheduler"}}),
}  # fmt: skip


def placed(value: Any, root: Path) -> Any:
    """Names of what is added as paths below `root`."""
    if isinstance(value, dict):
        return {k: str(root / v) if k == "id" else placed(v, root) for k, v in value.items()}
    return [placed(part, root) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", some_now(CASES, "text|class|image$|mask$|control$|lora|refiner"))
def test_images_are_those_of_the_cpu(case: str, root: Path, watch: Watch) -> None:
    family, config = CASES[case]
    config = placed(config, root)
    expected = made(family, root, "cpu", **config)
    found = made(family, root, NAME, **config)
    assert (found.int() - expected.int()).abs().max() <= (8 if case == "half" else 1)
    assert found.float().std() > 1


def test_noise_that_no_seed_controls_is_found_on_the_device_too(root: Path, watch: Watch) -> None:
    # Stable Diffusion 3 encodes what a ControlNet sees with noise of its own.
    with pytest.raises(GenerationError, match="drew from the global random generator"):
        made("sd3", root, NAME, controlnet={"id": str(root / "controlnet-sd3")})


def test_every_generator_that_may_be_drawn_from_is_looked_at(watch: Watch) -> None:
    def is_seen(draw: Callable[[], Any]) -> bool:
        before = global_generator_states(NAME)
        draw()
        return not all(map(torch.equal, before, global_generator_states(NAME)))

    assert is_seen(lambda: torch.randn(2))
    assert is_seen(lambda: torch.randn(2, device=NAME))
    assert is_seen(lambda: torch.randn_like(torch.zeros(2, device=NAME)))
    assert not is_seen(lambda: torch.randn(2, generator=torch.Generator()).to(NAME))


class Training:
    """Random images to be optimal for."""

    keys = tuple("abcdefgh")
    fingerprint = "random"

    def image(self, key: str) -> Tensor:
        draw = torch.Generator().manual_seed(ord(key))
        return torch.randint(256, (3, 8, 8), generator=draw, dtype=torch.uint8)


def test_the_optimal_denoiser_samples_and_is_differentiated(watch: Watch) -> None:
    config = OptimalDenoiserModelConfig(kind="optimal_denoiser", source="images")
    images = []
    for device in ("cpu", NAME):
        model = OptimalDenoiserModel(config, GenerationConfig(steps=5), Training(), device=device)
        assert model.pipeline.unet.images.device.type == device
        images.append(torch.stack(model.generate(PROMPTS, [0, 0], [1, 2])))  # type: ignore[arg-type]
    assert torch.equal(*images)
    draw = torch.Generator().manual_seed(0)
    data, noisy = (torch.randn(num, 5, generator=draw, dtype=torch.float64) for num in (9, 2))
    for function, x in ((optimal_denoiser, noisy), (optimal_jacobian, noisy[0])):
        expected = function(x, data, alpha=0.8, sigma=0.6)
        found = function(x.to(NAME), data.to(NAME), alpha=0.8, sigma=0.6)
        torch.testing.assert_close(found.cpu(), expected)


EXTRACTORS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "clip": lambda _: {"id": str(CLIP)},
    "digits": lambda _: {"kind": "evaluator.demo.classifier:DigitsExtractor"},
    "dinov3": lambda folder: {"id": str(tiny_models.dinov3(folder))},
    "inception": lambda folder: {
        "id": str(save_random_inception(folder)), "options": {"resize": "clean"},
    },
    "siglip": lambda folder: {"id": str(tiny_models.siglip(folder))},
    "vision": lambda folder: {"id": str(tiny_models.vit(folder)), "options": {"pooling": "mean"}},
}  # fmt: skip


@pytest.mark.parametrize("kind", EXTRACTORS)
def test_features_are_those_of_the_cpu(kind: str, tmp_path: Path, watch: Watch) -> None:
    config = FeatureConfig(**{"name": "mine", "kind": kind, **EXTRACTORS[kind](tmp_path)})
    trust = Trust(allow_code=True, relative_to=tmp_path)
    on_cpu, there = (
        build_extractor(config, device=device, trust=trust) for device in ("cpu", NAME)
    )
    images = [image[:, :32, :32] for image in tiny_models.IMAGES]
    inputs = torch.stack([there.preprocess(image) for image in images])
    expected = on_cpu.embed(inputs)
    for name, found in there.embed(inputs).items():
        assert found.device.type == "cpu"
        torch.testing.assert_close(found, expected[name], rtol=1e-3, atol=1e-4)
    if isinstance(there, TextExtractor):
        texts = [prompt.text or "" for prompt in PROMPTS]
        found, cut = there.embed_text(texts)
        assert found.device.type == "cpu"
        torch.testing.assert_close(found, on_cpu.embed_text(texts)[0], rtol=1e-3, atol=1e-5)  # type: ignore[attr-defined]
        assert cut == [False, False]
