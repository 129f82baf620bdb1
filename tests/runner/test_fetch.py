"""`fetch` brings everything a run will ask for, and says what is not to be had."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from evaluator.features.fetch import PublishedFile
from evaluator.features.inception_weights import PUBLISHED


def write(settings: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path


def test_everything_is_named_and_the_packs_are_there(
    settings: Callable[..., dict[str, Any]], call: Callable[..., Any], tmp_path: Path
) -> None:
    model = {"controlnet": {"id": "package://evaluator/demo/weights/clip"}}
    config = write(settings(model=model), tmp_path / "config.yaml")
    ended = call("fetch", config)
    assert ended.status == 0, ended.err
    said = dict(line.split(": ", 1) for line in ended.out.splitlines())
    assert said["model"] == settings()["model"]["id"]
    assert said["model.controlnet"].endswith("evaluator/demo/weights/clip")
    assert said["features.digits"] == said["features.clip"] == "there"
    assert said["prompts"] == "14 samples there"
    assert said["references.real"] == "90 samples there"
    assert list((Path(os.environ["EVALUATOR_CACHE"]) / "packs").iterdir())


def test_weights_of_an_extractor_that_only_a_metric_names_are_wanted_too(
    settings: Callable[..., dict[str, Any]], call: Callable[..., Any], tmp_path: Path
) -> None:
    config = write(settings(metrics=["fid"]), tmp_path / "config.yaml")
    ended = call("fetch", config)
    assert ended.status == 2
    assert isinstance(PUBLISHED, PublishedFile)
    assert f"{PUBLISHED.name}: expected the published weights at" in ended.err
