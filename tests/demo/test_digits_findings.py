"""What is said about attention follows from the heat maps and images that a run kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from evaluator.data import encode_image, sample_name, write_image_tar
from evaluator.demo.digits import RGB
from evaluator.demo.findings import ROLES, findings, stroke_mask
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory

CAPTION = "a red seven on a blue background"


def half_and_half(colour: str, ground: str) -> np.ndarray:
    """Stroke on the left half, ground on the right => (3, 32, 32) uint8."""
    image = np.empty((3, 32, 32), np.uint8)
    image[:, :, :16] = np.asarray(RGB[colour])[:, None, None]
    image[:, :, 16:] = np.asarray(RGB[ground])[:, None, None]
    return image


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Two prompts; each word attends to the stroke as much more as its place in the caption."""
    keys = ["a", "b"]
    plan = pa.table(
        [pa.array([0, 0], pa.int32()), keys, pa.array([0, 0], pa.int32()),
         pa.array([1, 2], pa.int64()), ["", ""]],
        schema=schemas.PLAN,
    )  # fmt: skip
    run = RunDirectory.create(tmp_path / "run", {}, plan)
    staged = run.stage("00000")
    samples = [{"key": key, "image_index": 0, "seed": 0, "prompt": CAPTION} for key in keys]
    schemas.write_table(
        pa.Table.from_pylist(samples, schema=schemas.SAMPLES), staged / "samples.parquet",
        kind="samples",
    )  # fmt: skip
    maps = [
        {
            "key": key, "image_index": 0, "step": step, "word": word, "height": 8, "width": 8,
            "map": np.tile([1.0 + word] * 4 + [1.0] * 4, 8).tolist(),
        }
        for key in keys for word in range(7) for step in (-1, 0)
    ]  # fmt: skip
    schemas.write_table(pa.Table.from_pylist(maps), staged / "heatmaps.parquet", kind="heatmaps")
    png, extension = encode_image(torch.from_numpy(half_and_half("red", "blue")), "png")
    write_image_tar(staged / "images.tar", [(sample_name(key, 0), extension, png) for key in keys])
    run.publish_shard(0, staged, {"samples.parquet": 2})
    return run


def test_the_stroke_is_what_is_nearer_to_its_colour() -> None:
    mask = stroke_mask(half_and_half("red", "blue"), "red", "blue")
    assert mask[:, :16].all()
    assert not mask[:, 16:].any()


def test_each_word_is_given_its_own_ratio(run: RunDirectory) -> None:
    found = findings(run)
    assert [finding.role for finding in found] == list(ROLES)
    assert [finding.stroke_ratio for finding in found] == pytest.approx([1, 2, 3, 4, 5, 6, 7])
    assert {finding.num_prompts for finding in found} == {2}
    assert all(finding.low == pytest.approx(finding.high) for finding in found), "no spread"
