"""Runs on disk without a model: any features, scores, prompts and faults, through the real store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from evaluator.aggregate.asked import Asked, ReferencePlace
from evaluator.aggregate.compute import aggregate
from evaluator.config.asked import MetricConfig
from evaluator.distributed import World
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory

FINGERPRINT = "ab" * 32
DIM = 3
METRICS = ("fd_toy", "kd_toy", "clip_score_toy")


@dataclass(frozen=True)
class Toy:
    """What a run is to be like."""

    prompts: int = 24
    images: int = 2
    seed: int = 0
    shift: float = 0.0
    """Added to every feature."""
    bonus: float = 0.0
    """Added to every cosine."""
    shard_size: int = 10
    backwards: bool = False
    """Whether the plan lists the prompts in the other order."""
    first: int = 0
    """Number of the first prompt: others leave prompts of other runs out."""
    failed: Sequence[str] = ()
    """Keys of prompts whose images failed."""
    content: Mapping[str, str] = field(default_factory=dict)
    """Key → another content hash."""
    text: Mapping[str, str | None] = field(default_factory=dict)
    """Key → another prompt, or none."""
    metrics: Sequence[Any] = METRICS
    fingerprint: str = FINGERPRINT
    reference: Path | None = None
    reference_content: str = "real"
    config: Mapping[str, Any] = field(default_factory=dict)
    tagged: bool = True
    dim: int = DIM
    committed: int | None = None
    """Only so many shards, and nothing asked."""
    cosines: str = "normal"
    """`marks`: 0 or 1."""

    def changed(self, **changes: Any) -> Toy:
        return replace(self, **changes)


def prompt_numbers(toy: Toy) -> list[int]:
    numbers = list(range(toy.first, toy.first + toy.prompts))
    return numbers[::-1] if toy.backwards else numbers


def key_of(number: int) -> str:
    return f"p-{number:05d}"


def values_of(toy: Toy, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(images, D) features and (images,) cosines: a prompt's share and noise of the run's seed."""
    shared = np.random.default_rng([7, number]).normal(size=toy.dim)
    rng = np.random.default_rng([toy.seed, number])
    features = 0.8 * shared + 0.6 * rng.normal(size=(toy.images, toy.dim)) + toy.shift
    noise = 0.02 * rng.normal(size=toy.images)
    if toy.cosines == "marks":
        return features, (rng.uniform(size=toy.images) < 0.5 + toy.bonus).astype(np.float64)
    return features, 0.3 + 0.05 * np.tanh(shared[0]) + noise + toy.bonus


def tags_of(number: int) -> list[tuple[str, str]]:
    return [("colour", "red" if number % 2 else "blue")]


def make_run(path: Path, toy: Toy) -> RunDirectory:
    """Write the run, and its numbers unless it is incomplete."""
    numbers = prompt_numbers(toy)
    rows = [(key_of(number), image, number) for number in numbers for image in range(toy.images)]
    size = toy.shard_size
    plan = pa.table(
        {
            "shard": pa.array([i // size for i in range(len(rows))], pa.int32()),
            "key": [key for key, _, _ in rows],
            "image_index": pa.array([image for _, image, _ in rows], pa.int32()),
            "seed": pa.array(range(len(rows)), pa.int64()),
            "content": [toy.content.get(key, f"content of {key}") for key, _, _ in rows],
        },
        schema=schemas.PLAN,
    )
    config = {
        "name": path.name,
        "model": {"kind": "diffusers", "id": "toy"},
        "generation": {"steps": 20, "guidance_scale": 3.0, "seed": toy.seed, "height": None},
        **toy.config,
    }
    init = {"config.yaml": yaml.safe_dump(config).encode(), "provenance.json": b"{}"}
    run = RunDirectory.create(path, init, plan)
    for shard in range(run.num_shards if toy.committed is None else toy.committed):
        _commit(run, shard, toy, rows[shard * size : (shard + 1) * size])
    if toy.committed is None:
        aggregate(run, asked_of(toy, run), world=World())
    return run


def asked_of(toy: Toy, run: RunDirectory) -> Asked:
    places = {}
    if toy.reference is not None:
        features = {"toy": toy.fingerprint}
        places["real"] = ReferencePlace(str(toy.reference), None, None, features)
    metrics = [{"name": each} if isinstance(each, str) else each for each in toy.metrics]
    request = {"references": {name: {"source": toy.reference_content} for name in places}}
    asked = Asked(
        tuple(MetricConfig.model_validate(metric) for metric in metrics),
        {"toy": toy.fingerprint},
        places,
        request,
    )
    asked.write(run)
    return asked


def _commit(run: RunDirectory, shard: int, toy: Toy, rows: list[tuple[str, int, int]]) -> None:
    keys = pa.array([key for key, _, _ in rows])
    indices = pa.array([image for _, image, _ in rows], pa.int32())
    errors = [("the model failed" if key in toy.failed else None) for key, _, _ in rows]
    made = {number: values_of(toy, number) for number in {number for _, _, number in rows}}
    features = [
        None if errors[i] else made[number][0][image] for i, (_, image, number) in enumerate(rows)
    ]
    cosines = [
        None if errors[i] else made[number][1][image] for i, (_, image, number) in enumerate(rows)
    ]
    staged = run.stage(f"{shard:05d}.0")
    samples = {
        "key": keys,
        "image_index": indices,
        "seed": pa.array([0] * len(rows), pa.int64()),
        "prompt": [toy.text.get(key, f"prompt of {key}") for key, _, _ in rows],
        "tags": [tags_of(number) if toy.tagged else None for _, _, number in rows],
        "error": errors,
        "pixels_sha256": [
            None if errors[i] else f"{toy.seed}/{key}/{image}"
            for i, (key, image, _) in enumerate(rows)
        ],
    }
    columns = [samples.get(f.name, [None] * len(rows)) for f in schemas.SAMPLES]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, schemas.SAMPLES, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schemas.SAMPLES)
    schemas.write_table(table, staged / "samples.parquet", kind="samples")
    schema = schemas.features_schema({"features": toy.dim}, [("text_cosine", pa.float64())])
    lists = pa.array(
        [None if row is None else row.astype(np.float32) for row in features],
        pa.list_(pa.float32(), toy.dim),
    )
    name = schemas.features_name("toy", toy.fingerprint)
    written = pa.Table.from_arrays(
        [keys, indices, lists, pa.array(cosines, pa.float64())], schema=schema
    )
    schemas.write_table(written, staged / name, kind="features")
    run.publish_shard(shard, staged, {"samples.parquet": len(rows), name: len(rows)})
