"""A small run on disk, made with the store's functions and without a model; its texts are hostile."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from evaluator.data.kept import sample_name, write_image_tar
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory

HOSTILE_NAME = '=1+1: <script>alert("a")</script>, \x1b[31m"b" # ../../c'
PROMPTS = (
    '=cmd|"/c calc"!A1',
    '<script>document.title="owned"</script>, "quoted" & \'more\'',
    "a \x1b[31mred\x07 line\nbreak \u202ereverse",
    "- yaml: [x]\t# {y}: *z",
    " +1 after a space",
    "",
)
FINGERPRINT = "0123456789abcdef" * 4
SAMPLES_IN_SHARD = 4
IMAGES_PER_PROMPT = 2
FAILED = 5
"""The sample that has an error."""

CONFIG: dict[str, Any] = {
    "model": {"kind": "diffusers", "id": "some-org/some-model", "hub_token": "hf_verysecret"},
    "generation": {"steps": 4, "guidance_scale": 3.0, "seed": 0},
    "prompts": {"source": "https://user:pass@example.org/prompts.jsonl?token=abc"},
}

METRICS: list[dict[str, Any]] = [
    {
        "name": "fd_clip", "value": 12.345678901234567, "n": 11, "n_expected": 12,
        "higher_is_better": False,
        "interval": {"low": 11.5, "high": 13.25, "level": 0.95, "method": "jackknife",
                     "covers": "FD at this n"},
        "extractor": "clip", "fingerprint": FINGERPRINT,
        "reference": {"name": "real", "n": 359},
        "warnings": ["11 samples: \x1b[31mbelow\x1b[0m 10,000", "<b>biased</b>"],
        "details": {"n_reference": 359.0},
    },
    {
        "name": "clip_score", "value": 30.5, "n": 11, "n_expected": 12, "higher_is_better": True,
        "interval": {"low": 29.0, "high": 32.0, "level": 0.95, "method": "clustered", "covers": ""},
        "extractor": "clip", "fingerprint": FINGERPRINT, "reference": None, "warnings": [],
    },
    {
        "name": "clip_score", "value": 31.0, "n": 6, "n_expected": 6, "higher_is_better": True,
        "interval": None, "extractor": "clip", "fingerprint": FINGERPRINT, "reference": None,
        "warnings": [], "group": {"region": "=x <i>"},
    },
    {
        "name": "@SUM(A1)", "value": None, "n": 0, "n_expected": 12, "higher_is_better": None,
        "interval": None, "extractor": None, "fingerprint": None, "reference": None,
        "warnings": ['=HYPERLINK("http://evil")'],
    },
]  # fmt: skip


def position(i: int) -> tuple[str, int]:
    """Key and image index of the sample at a place of the plan."""
    return f"k{i // IMAGES_PER_PROMPT:02d}", i % IMAGES_PER_PROMPT


def build_run(
    path: Path,
    *,
    name: str = "small",
    missing: Sequence[int] = (),
    images: bool = True,
    metrics: bool = True,
    offset: float = 0.0,
) -> RunDirectory:
    """Twelve samples in three shards, less those `missing`; `offset` is added to every score."""
    import yaml

    num = len(PROMPTS) * IMAGES_PER_PROMPT
    keys, indices = zip(*(position(i) for i in range(num)))
    plan = pa.table(
        {
            "shard": [i // SAMPLES_IN_SHARD for i in range(num)],
            "key": list(keys),
            "image_index": list(indices),
            "seed": [7 * i + 1 for i in range(num)],
            "content": ["0" * 64] * num,
        },
        schema=schemas.PLAN,
    )
    provenance = {"git_revision": "a" * 40, "model": {"revision": "b" * 40, "api_key": "sk-hid"}}
    init = {
        "config.yaml": yaml.safe_dump({"name": name, **CONFIG}, sort_keys=False).encode(),
        "provenance.json": json.dumps(provenance).encode(),
    }
    run = RunDirectory.create(path, init, plan)
    run.record_launch("20260102T030405.000000006-host-7", {"command": []})
    for index in set(range(run.num_shards)) - set(missing):
        _commit(run, index, images=images, offset=offset)
    if not missing:
        schedule = pa.table({"step": [0, 1], "alpha": [0.1, 0.9], "sigma": [0.99, 0.43]})
        schemas.write_table(schedule, path / "schedule.parquet", kind="schedule")
    asked = {"by": None, "extractor": None, "held_out": None, "name": "clip_score",
             "reference": None}  # fmt: skip
    record = {"fingerprints": {"clip": FINGERPRINT}, "metrics": [asked], "references": {}}
    run.write("asked.json", json.dumps({**record, "request": {}}).encode())
    if metrics:
        judged = [i for i in range(num) if i not in (FAILED, 6, 7)]  # not every sample is judged
        realism = pa.table(
            {
                "key": [position(i)[0] for i in judged],
                "image_index": pa.array([position(i)[1] for i in judged], pa.int32()),
                "realism": [0.5 + i / 16 + offset for i in judged],
            }
        )
        run.write_metric_table("realism", realism)
        counts = {"planned": num, "committed": num - 4 * len(missing), "errors": 1, "truncated": 0}
        record = {
            "format": 1, "complete": not missing, "samples": counts, "metrics": METRICS,
            "sample_errors": [], "request": None,
        }  # fmt: skip
        run.write("metrics.json", json.dumps(record).encode())
    return run


def _commit(run: RunDirectory, index: int, *, images: bool, offset: float) -> None:
    places = range(run.shard_starts[index], run.shard_starts[index + 1])
    note = {"extractor": "clip", "fingerprint": FINGERPRINT}
    tables = {
        "samples": (_samples(places), None),
        "timings": (_timings(places), None),
        "attention": (_attention(places), None),
        "latents": (_latents(places), None),
        f"features-clip-{FINGERPRINT[:8]}": (_features(places, offset), note),
    }
    staged = run.stage(f"{index:05d}.0")
    rows: dict[str, int | None] = {}
    for name, (table, metadata) in tables.items():
        kind = name.partition("-")[0]
        schemas.write_table(table, staged / f"{name}.parquet", kind=kind, metadata=metadata)
        rows[f"{name}.parquet"] = table.num_rows
    if images:
        members = [(sample_name(*position(i)), "png", picture(i)) for i in places if i != FAILED]
        write_image_tar(staged / "images.tar", members)
        rows["images.tar"] = None
    assert run.publish_shard(index, staged, rows)


def picture(i: int) -> bytes:
    """Eight by eight pixels of one colour that says which sample it is."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (10 * i, 255 - 10 * i, 128)).save(out, "PNG")
    return out.getvalue()


def _samples(places: range) -> pa.Table:
    rows = [
        {
            "key": position(i)[0], "image_index": position(i)[1], "seed": 7 * i + 1,
            "prompt": PROMPTS[i // IMAGES_PER_PROMPT], "tags": {"region": "=x <i>"},
            "truncated": False, "height": None if i == FAILED else 8,
            "width": None if i == FAILED else 8,
            "error": "the prompt is <empty>" if i == FAILED else None,
        }
        for i in places
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schemas.SAMPLES)


def _features(places: range, offset: float) -> pa.Table:
    rows = [
        {
            "key": position(i)[0], "image_index": position(i)[1],
            "features": None if i == FAILED else [float(i), 1.0, -1.0],
            "text_cosine": None if i == FAILED else 0.25 + i / 64 + offset,
        }
        for i in places
    ]  # fmt: skip
    schema = schemas.features_schema({"features": 3}, [("text_cosine", pa.float64())])
    return pa.Table.from_pylist(rows, schema=schema)


def _attention(places: range) -> pa.Table:
    rows = [(i, step) for i in places for step in (0, 2)]
    mass = np.array([0.125 * (1 + step) for _, step in rows], np.float16)
    return pa.table(
        {
            "key": [position(i)[0] for i, _ in rows],
            "image_index": pa.array([position(i)[1] for i, _ in rows], pa.int32()),
            "step": pa.array([step for _, step in rows], pa.int16()),
            "mass": pa.array(mass),
            "map": pa.array([[np.float16(0.5)]] * len(rows), pa.list_(pa.float16())),
        }
    )


def _latents(places: range) -> pa.Table:
    return pa.table(
        {
            "key": [position(i)[0] for i in places],
            "image_index": pa.array([position(i)[1] for i in places], pa.int32()),
            "step": pa.array([0] * len(places), pa.int16()),
            "std": [1.0 - i / 100 for i in places],
        }
    )


def _timings(places: range) -> pa.Table:
    row = {
        "stage": "generate", "seconds": 1.5, "samples": len(places), "worker": "node:1", "rank": 0,
        "device": "cpu", "threads": 1, "batch_size": 4,
    }  # fmt: skip
    return pa.Table.from_pylist([row], schema=schemas.TIMINGS)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with everything; tests must not change it."""
    return build_run(tmp_path_factory.mktemp("small") / "run").path


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a hostile name; tests must not change it."""
    return build_run(tmp_path_factory.mktemp("hostile") / "run", name=HOSTILE_NAME).path
