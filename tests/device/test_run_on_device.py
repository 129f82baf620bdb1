"""A whole run whose worker has the device: images, features, scores and tables of a CPU's run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from evaluator.config import parse_config
from evaluator.data.kept import read_image_tar
from evaluator.distributed import World
from evaluator.runner.evaluation import Outcome, run_evaluation
from evaluator.runner.trust import Trust
from evaluator.stopping import StopRequest
from tests.device.pretend import NAME, Watch
from tests.device.tables import assert_same_tables
from tests.tiny import saved

TEST = "package://evaluator/demo/data/test.parquet"


def settings(root: Path) -> dict[str, Any]:
    """Two shards of six tiny images with all probes, two extractors and metrics of each sort."""
    return {
        "name": "there",
        "model": {"kind": "diffusers", "id": str(saved("sd", root))},
        "generation": {"steps": 3, "guidance_scale": 3.0, "height": 16, "width": 16},
        "prompts": {"source": TEST, "limit": 12},
        "references": {"real": {"source": TEST, "limit": 60}},
        "features": ["digits", {"name": "clip", "id": "package://evaluator/demo/weights/clip"}],
        "metrics": ["fd_digits", "kd_digits", "is_digits", "prdc_digits", "clip_score"],
        "probes": {"attention": {"steps": 2, "maps": 2, "pairs": True}, "latents": {}},
        "runtime": {"threads": 1, "batch_size": 4, "shard_size": 6},
    }


def outcome(config: dict[str, Any], path: Path, device: str) -> Outcome:
    return run_evaluation(
        parse_config(yaml.safe_dump(config), where="test"), path, world=World(device=device),
        stop=StopRequest(), trust=Trust(allow_code=True),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_a_run_on_the_device_says_what_a_run_on_the_cpu_says(tmp_path: Path, watch: Watch) -> None:
    config = settings(tmp_path)
    expected = outcome(config, tmp_path / "cpu", "cpu")
    assert not watch.synchronizations
    found = outcome(config, tmp_path / "there", NAME)
    assert watch.synchronizations
    assert not found.errors
    assert found.run.committed() == expected.run.committed() == [0, 1]
    for index in found.run.committed():
        compare_shards(found.run.shard_path(index), expected.run.shard_path(index))
    ours, others = (
        {metric.name: metric.value for metric in made.summary.metrics} for made in (found, expected)
    )
    assert {"fd_digits", "clip_score", "precision_digits"} <= set(others)
    # One grey level of one pixel moves every feature a little.
    assert ours == pytest.approx(others, rel=2e-2, abs=1e-2)


@pytest.mark.filterwarnings("ignore")
def test_code_of_a_users_own_may_leave_its_results_on_the_device(
    tmp_path: Path, watch: Watch
) -> None:
    there = "tests.device.forgetful"
    config = {
        **settings(tmp_path),
        "model": {"kind": "custom", "target": f"{there}:ForgetfulModel"},
        "generation": {},
        "features": [{"name": "own", "kind": f"{there}:ForgetfulExtractor"}],
        "metrics": ["fd_own"],
        "probes": {},
    }
    expected = outcome(config, tmp_path / "cpu", "cpu")
    found = outcome(config, tmp_path / "there", NAME)
    assert not found.errors
    compare_shards(found.run.shard_path(0), expected.run.shard_path(0))
    (ours,), (others,) = (made.summary.metrics for made in (found, expected))
    assert ours.value == pytest.approx(others.value, rel=1e-6)


def compare_shards(found: Path, expected: Path) -> None:
    """Images to a grey level, tables to rounding."""
    names = {path.name for path in expected.iterdir()}
    assert {path.name for path in found.iterdir()} == names
    for ours, others in zip(*(list(read_image_tar(p / "images.tar")) for p in (found, expected))):
        pictures = [np.asarray(Image.open(io.BytesIO(m.data)), np.int16) for m in (ours, others)]
        assert ours.key == others.key
        assert np.abs(pictures[0] - pictures[1]).max() <= 1
    for name in sorted(names):
        if name in ("attention.parquet", "attention_pairs.parquet", "latents.parquet"):
            tables = [pq.read_table(folder / name) for folder in (found, expected)]
            assert_same_tables(*tables, rtol=5e-3, atol=1e-3)
