"""The configurations that come along: valid as they are, and in tune with their families."""

from __future__ import annotations

import re
from pathlib import Path

import diffusers
import pytest

from evaluator.config import load_config
from evaluator.config.points import load_runs
from evaluator.models.diffusers import DiffusersModel
from evaluator.runner.dryrun import describe
from tests.tiny import TEXTLESS, saved

FOLDER = Path(__file__).parents[2] / "configs"
FAMILIES = {
    "sd15": "sd",
    "sd15-lcm": "sd",
    "sd21": "sd",
    "sdxl": "sdxl",
    "sdxl-turbo": "sdxl",
    "sd3-medium": "sd3",
    "sd35": "sd3",
    "flux-dev": "flux",
    "flux-schnell": "flux",
    "pixart-alpha": "pixart-alpha",
    "pixart-sigma": "pixart-sigma",
    "sana": "sana",
    "lumina2": "lumina2",
    "qwen-image": "qwen-image",
    "dit-xl-2-256": "dit",
    "ddpm-cifar10": "ddpm",
    "ddim-cifar10": "ddpm",
}
"""Configuration → the family that it is about."""


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_ready_configuration_is_valid(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALUATOR_CACHE", str(tmp_path))
    first, *rest = describe(load_runs(path), relative_to=path.parent, allow_code=False)
    assert first == f"{path.stem}: the configuration is valid"
    assert any(line.startswith("plan: ") for line in rest)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_ready_configurations_settings_are_those_its_family_takes(
    name: str, tmp_path: Path
) -> None:
    config = load_config(FOLDER / f"{name}.yaml")
    assert config.model.kind == "diffusers"
    here = {
        "id": str(saved(FAMILIES[name], tmp_path)),
        "variant": None,
        "dtype": "float32",
        "loras": (),
    }
    # Only loaded: whatever the pipeline would ignore or does not know is refused then.
    model = DiffusersModel(config.model.model_copy(update=here), config.generation)
    assert config.model.scheduler is None or (
        type(model.pipeline.scheduler).__name__ == config.model.scheduler.name
    )


def test_every_ready_configuration_is_checked_against_its_family() -> None:
    names = {path.stem for path in FOLDER.glob("*.yaml")}
    assert {name for name in names if not name.startswith("digits")} == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_ready_configuration_offers_in_comments_is_valid_too(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / f"{name}.yaml"
    offers = re.compile(r"^( *)# (scheduler|refiner|probes|revision): ", re.MULTILINE)
    text = (FOLDER / path.name).read_text().replace("revision: <commit>", "revision: 0123abcd")
    assert {"revision", "probes"} <= {match[2] for match in offers.finditer(text)}
    path.write_text(offers.sub(r"\1\2: ", text))
    config = load_config(path)
    assert config.model.kind == "diffusers"
    assert config.model.revision == "0123abcd"
    assert config.model.scheduler is not None, "which scheduler its authors recommend"
    assert issubclass(getattr(diffusers, config.model.scheduler.name), diffusers.SchedulerMixin)
    assert config.probes.latents is not None
    textless = FAMILIES[name] in TEXTLESS
    assert (config.probes.attention is None) == textless
