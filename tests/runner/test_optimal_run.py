"""The optimal denoiser goes through `run` like any model, and its samples are found as copies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluator.config import RunConfig
from evaluator.data import decode_image, expand_source, open_source, read_image_tar
from evaluator.runner.dryrun import describe_job
from tests.runner.conftest import bytes_of, launch, run_here

SOURCE = "package://evaluator/demo/data/test.parquet"
TRAINING = {"source": SOURCE, "limit": 80}
OPTIMAL: dict[str, Any] = {
    "model": {"kind": "optimal_denoiser", **TRAINING},
    "generation": {"steps": 10},
    "references": {"real": None, "training": TRAINING},
    "features": ["digits"],
    "metrics": [{"name": "memorized_fraction", "extractor": "digits", "threshold": 0.999}],
    "probes": {"attention": None},
}


def memorized(run: Path) -> float:
    record = json.loads((run / "metrics.json").read_text())
    (metric,) = [m for m in record["metrics"] if m["name"].startswith("memorized_fraction")]
    return float(metric["value"])


def test_its_samples_are_training_images_and_are_found(
    configured: Callable[..., RunConfig], tmp_path: Path
) -> None:
    run = run_here(configured(**OPTIMAL), tmp_path / "run").run.path
    assert memorized(run) == 1.0
    training = open_source(expand_source(SOURCE), cache=tmp_path, limit=80)
    known = {training.image(key).numpy().tobytes() for key in training.keys}
    kept = [
        decode_image(image.data).numpy().tobytes()
        for tar in sorted((run / "shards").glob("*/images.tar"))
        for image in read_image_tar(tar)
    ]
    assert len(kept) == 28
    assert set(kept) <= known, "to the last bit"
    assert (run / "schedule.parquet").is_file()
    assert len(list((run / "shards").glob("*/latents.parquet"))) == 5


def test_held_out_images_are_not_taken_for_copies(
    configured: Callable[..., RunConfig], tmp_path: Path
) -> None:
    changes = {
        **OPTIMAL,
        "model": {"kind": "images"},
        "generation": {"images_per_prompt": 1},
        "prompts": {"source": SOURCE, "limit": 360},
        "probes": None,
    }
    fraction = memorized(run_here(configured(**changes), tmp_path / "held-out").run.path)
    assert fraction < 0.5, "80 of the 360 are the training images themselves"


def test_validate_looks_at_the_training_images(
    configured: Callable[..., RunConfig], tmp_path: Path
) -> None:
    lines = describe_job(configured(**OPTIMAL), relative_to=tmp_path, allow_code=False)
    assert f"model: 80 from {SOURCE}" in lines


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings(**OPTIMAL)))
    for name, kind, processes in (("one", "python", 1), ("two", "accelerate", 2)):
        arguments = ["run", str(config), "--output", str(tmp_path / name)]
        done = launch(kind, processes, arguments, cache=tmp_path / f"cache-{name}")
        assert done.returncode == 0, done.stderr
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert memorized(tmp_path / "two") == 1.0
