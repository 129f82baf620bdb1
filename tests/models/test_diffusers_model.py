"""A diffusers pipeline as a model: the bare pipeline's images, and clear refusals."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluator.config.schema import DiffusersModelConfig, GenerationConfig
from evaluator.errors import ConfigError, InputError, NonFiniteError
from evaluator.models.diffusers import DiffusersModel
from evaluator.models.pixels import to_pixels
from evaluator.records import Prompt
from tests.probes import conftest as tiny


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved tiny pipelines by family."""
    root = tmp_path_factory.mktemp("pipelines")
    builders = {
        "sd": tiny.build_stable_diffusion,
        "sdxl": tiny.build_stable_diffusion_xl,
        "ddpm": lambda: tiny.build_unconditional("ddpm"),
    }
    for name, build in builders.items():
        build().save_pretrained(root / name)
    return {name: root / name for name in builders}


def model(
    folder: Path, *, generation: dict[str, Any] | None = None, **config: Any
) -> DiffusersModel:
    return DiffusersModel(
        DiffusersModelConfig(kind="diffusers", id=str(folder), **config),
        GenerationConfig(**{"steps": 2, "guidance_scale": 3.0, **(generation or {})}),
    )


PROMPTS = [Prompt("a", "a red dog"), Prompt("b", "a blue cat")]


@pytest.mark.parametrize("family", ["sd", "sdxl", "ddpm"])
def test_images_are_those_of_the_bare_pipeline(folders: dict[str, Path], family: str) -> None:
    ours = model(folders[family])
    made = ours.generate(PROMPTS, [0, 0], [7, 8])
    arguments: dict[str, Any] = {"num_inference_steps": 2, "output_type": "pil"}
    if family == "ddpm":
        arguments |= {"batch_size": 2}
    else:
        arguments |= {"prompt": [p.text for p in PROMPTS], "guidance_scale": 3.0}
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    expected = ours.pipeline(**arguments, generator=generators).images
    for image, picture in zip(made, expected, strict=True):
        assert isinstance(image, torch.Tensor)
        assert image.dtype == torch.uint8
        assert image.permute(1, 2, 0).numpy().tobytes() == picture.tobytes()


def test_a_prompts_own_negative_prompt_goes_before_the_runs(folders: dict[str, Path]) -> None:
    own = [Prompt("a", "a red dog", negative_prompt="a blue cat"), PROMPTS[1]]
    plain = model(folders["sd"]).generate(PROMPTS, [0, 0], [7, 8])
    some = model(folders["sd"]).generate(own, [0, 0], [7, 8])
    general = model(folders["sd"], generation={"negative_prompt": "a blue cat"})
    both = general.generate(PROMPTS, [0, 0], [7, 8])
    assert not torch.equal(some[0], plain[0])
    assert torch.equal(some[1], plain[1])
    assert torch.equal(both[0], some[0])


def test_the_fingerprint_knows_weights_scheduler_and_settings(folders: dict[str, Path]) -> None:
    base = model(folders["sd"]).fingerprint
    assert model(folders["sd"]).fingerprint == base
    assert model(folders["sd"], generation={"steps": 3}).fingerprint != base
    swapped = {"name": "EulerDiscreteScheduler", "arguments": {"use_karras_sigmas": True}}
    assert model(folders["sd"], scheduler=swapped).fingerprint != base


def test_pickled_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "pickled"
    shutil.copytree(folders["sd"], copy)
    for path in copy.rglob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"expected weights as .safetensors, got .bin"):
        model(copy)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_pickled_weights_of_one_component_are_refused(
    folders: dict[str, Path], tmp_path: Path, component: str
) -> None:
    copy = tmp_path / "mixed"
    shutil.copytree(folders["sd"], copy)
    (weights,) = (copy / component).glob("*.safetensors")
    weights.unlink()
    (name,) = {"text_encoder": {"pytorch_model.bin"}}.get(
        component, {"diffusion_pytorch_model.bin"}
    )
    ran = tmp_path / "ran"
    (copy / component / name).write_bytes(pickle.dumps(Writes(ran)))
    with pytest.raises(InputError, match="expected a pipeline that diffusers can load"):
        model(copy)
    assert not ran.exists()


class Writes:
    """A pickle that shows whether it was loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "loaded"))


@pytest.mark.parametrize("part", ["pipeline", "component", "library"])
def test_code_that_comes_with_a_checkpoint_does_not_run(
    folders: dict[str, Path], tmp_path: Path, part: str
) -> None:
    copy, ran = tmp_path / "coded", tmp_path / "ran"
    shutil.copytree(folders["sd"], copy)
    index = json.loads((copy / "model_index.json").read_text())
    place = {"pipeline": copy, "component": copy / "unet", "library": tmp_path}[part]
    if part == "pipeline":
        index["_class_name"] = ["own_code", "StableDiffusionPipeline"]
    else:
        index["unet"] = ["own_code", "UNet2DConditionModel"]
    (copy / "model_index.json").write_text(json.dumps(index))
    (place / "own_code.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(ran)!r}).write_text('ran')\n"
        "from diffusers import StableDiffusionPipeline, UNet2DConditionModel\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(InputError, match="expected a pipeline that diffusers can load"):
            model(copy)
    assert not ran.exists()


@pytest.mark.parametrize("index", ["{", "[]", '{"_class_name": 7}', '{"_class_name": "Nothing"}'])
def test_an_index_that_names_no_pipeline_is_an_error_and_no_traceback(
    folders: dict[str, Path], tmp_path: Path, index: str
) -> None:
    copy = tmp_path / "indexed"
    shutil.copytree(folders["sd"], copy)
    (copy / "model_index.json").write_text(index)
    with pytest.raises(InputError, match=r"expected (a pipeline|model_index.json as JSON)"):
        model(copy)


def test_damaged_weights_are_an_error_and_no_traceback(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "damaged"
    shutil.copytree(folders["sd"], copy)
    (weights,) = (copy / "unet").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="expected a pipeline that diffusers can load"):
        model(copy)


def test_a_folder_that_is_no_pipeline_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="model_index.json"):
        model(folders["sd"] / "unet")


def test_pixels_that_are_not_finite_are_an_error_in_the_images_place(
    folders: dict[str, Path],
) -> None:
    broken = model(folders["sd"])
    with torch.no_grad():
        next(broken.pipeline.vae.decoder.parameters()).fill_(float("nan"))
    for image in broken.generate(PROMPTS, [0, 0], [7, 8]):
        assert isinstance(image, NonFiniteError)
        assert "try model.dtype" in str(image)


def test_an_image_that_is_not_finite_leaves_its_neighbours_as_they_are() -> None:
    values = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole = to_pixels(values, remedy="")
    for bad in (float("nan"), float("inf"), float("-inf")):
        spoilt = values.clone()
        spoilt[1, 2, 3, 0] = bad
        first, second, third = to_pixels(spoilt, remedy="do this")
        assert isinstance(second, NonFiniteError)
        assert str(second).endswith("do this")
        assert torch.equal(first, whole[0])
        assert torch.equal(third, whole[2])


def test_settings_that_the_pipeline_does_not_take_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"generation.height: DDPMPipeline takes no such"):
        model(folders["ddpm"], generation={"height": 64})
