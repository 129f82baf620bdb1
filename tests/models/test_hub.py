"""Weights by hub id: found in the hub's cache, pinned to a commit, and never a pickle or code."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from evaluator.config.schema import DiffusersModelConfig, GenerationConfig
from evaluator.errors import InputError
from evaluator.models.diffusers import DiffusersModel
from evaluator.weights import find_weights
from tests.tiny.unets import build_unconditional

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds one repository, as a machine without a network would have it."""
    repository = tmp_path / "hub" / "models--team--tiny"
    build_unconditional("ddpm").save_pretrained(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_hub_id_is_pinned_to_the_commit_it_stands_for(hub: Path) -> None:
    config = DiffusersModelConfig(kind="diffusers", id="team/tiny")
    model = DiffusersModel(config, GenerationConfig(steps=1))
    assert model.describe()["revision"] == COMMIT
    folder = hub / "models--team--tiny" / "snapshots" / COMMIT
    assert model.describe()["weights_sha256"] == find_weights(str(folder)).sha256


def test_a_commit_that_is_not_there_is_an_error(hub: Path) -> None:
    with pytest.raises(InputError, match="team/tiny: expected a folder or a repository"):
        find_weights("team/tiny", revision="f" * 40)


def test_a_repository_of_pickles_is_refused(hub: Path) -> None:
    folder = hub / "models--team--tiny" / "snapshots" / COMMIT
    for path in list(folder.rglob("*.safetensors")):
        shutil.move(path, path.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"expected weights as .safetensors, got .*\.bin"):
        find_weights("team/tiny")
