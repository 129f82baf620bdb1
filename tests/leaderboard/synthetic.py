"""Run directories as `run` leaves them, without a model: plan, settings, numbers, tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from evaluator.aggregate.asked import request_digest
from evaluator.aggregate.summary import Counts, MetricRecord, Summary
from evaluator.metrics.intervals import COVERS_SET, clustered_mean_interval
from evaluator.store.rundir import RunDirectory
from evaluator.store.schemas import PLAN

SET_METHOD = "delete-a-group jackknife (20 groups)"


@dataclass(frozen=True)
class SetNumber:
    """A number of a whole set, with a symmetric interval."""

    name: str
    value: float | None
    reach: float | None = 0.5
    extractor: str = "inception"
    fingerprint: str = "f" * 64
    higher_is_better: bool | None = False
    n: int | None = None
    group: dict[str, str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    left_out: Sequence[float] | None = None
    """The number without each group of prompts."""
    sizes: Sequence[int] | None = None
    """Samples in each group; groups of one size by default."""


@dataclass(frozen=True)
class MeanNumber:
    """The mean of (N,) scores, one a sample."""

    name: str
    scores: Sequence[float] | np.ndarray
    table: bool = True
    """Whether the scores are on disk."""
    group: dict[str, str] | None = None
    asked: str | None = None


def keys_of(num_prompts: int) -> list[str]:
    return [f"p{i:06d}" for i in range(num_prompts)]


def make_run(
    path: Path,
    numbers: Sequence[SetNumber | MeanNumber],
    *,
    name: str | None = None,
    num_prompts: int = 100,
    images: int = 1,
    prompts: str = "a" * 64,
    reference: str = "b" * 64,
    called: str = "real",
    committed: int | None = None,
    errors: int = 0,
    model: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
) -> Path:
    """A finished run; every set number is against the reference `real`."""
    keys = keys_of(num_prompts)
    model = {"kind": "diffusers", "id": "some/model", "dtype": "float16", **(model or {})}
    config = {
        "name": name or path.name,
        "model": model,
        "generation": {"steps": 20, "guidance_scale": 7.5, "height": 64, "width": 64,
                       "images_per_prompt": images, "seed": 0, **(generation or {})},
        "prompts": {"source": "prompts.txt", "limit": None},
    }  # fmt: skip
    provenance = {
        "model": {"kind": model["kind"], "id": model["id"], "revision": "c0ffee",
                  "scheduler": "DDIMScheduler", "dtype": "float16", "weights_sha256": "d" * 64},
        "prompts": {"fingerprint": prompts},
        "versions": {"evaluator": "0.1.0"},
    }  # fmt: skip
    init = {
        "config.yaml": yaml.safe_dump(config).encode(),
        "provenance.json": json.dumps(provenance).encode(),
    }
    run = RunDirectory.create(path, init, _plan(keys, images))
    _write_numbers(run, numbers, keys, images, {called: {"source": reference}}, committed, errors)
    return path


def _write_numbers(
    run: RunDirectory,
    numbers: Sequence[SetNumber | MeanNumber],
    keys: list[str],
    images: int,
    references: Mapping[str, Any],
    committed: int | None,
    errors: int,
) -> None:
    metrics = [
        {"name": n.name, "extractor": n.extractor if isinstance(n, SetNumber) else "clip",
         "reference": None, "held_out": None, "by": None,
         **(n.options if isinstance(n, SetNumber) else {})}
        for n in numbers if n.group is None
    ]  # fmt: skip
    request = {"metrics": metrics, "references": references}
    total = len(keys) * images
    records = [_record(number, keys, images, next(iter(references))) for number in numbers]
    for number in numbers:
        if isinstance(number, MeanNumber) and number.table and number.group is None:
            write_scores(run, number.name, keys, images, np.asarray(number.scores, np.float64))
    counts = Counts(total, total if committed is None else committed, errors, 0)
    summary = Summary(counts, tuple(records), (), request_digest(request))
    run.write("metrics.json", json.dumps(summary.record()).encode())
    run.write("asked.json", json.dumps({"request": request}).encode())


def write_scores(
    run: RunDirectory, name: str, keys: list[str], images: int, scores: np.ndarray
) -> None:
    table = pa.table({
        "key": pa.array(np.repeat(np.array(keys), images)),
        "image_index": pa.array(np.tile(np.arange(images, dtype=np.int32), len(keys))),
        "score": scores,
    })  # fmt: skip
    run.write_metric_table(name, table, {"means": {name: {"column": "score", "factor": 1.0}}})


def _plan(keys: list[str], images: int) -> pa.Table:
    total = len(keys) * images
    return pa.table(
        {
            "shard": np.arange(total, dtype=np.int32) // 256,
            "key": np.repeat(np.array(keys), images),
            "image_index": np.tile(np.arange(images, dtype=np.int32), len(keys)),
            "seed": np.arange(total, dtype=np.int64),
            "content": ["0" * 64] * total,
        }
    ).cast(PLAN)


def _record(
    number: SetNumber | MeanNumber, keys: list[str], images: int, called: str
) -> MetricRecord:
    total = len(keys) * images
    if isinstance(number, MeanNumber):
        scores = np.asarray(number.scores, np.float64)
        clusters = np.repeat(np.arange(len(keys)), images)[: len(scores)]
        interval = asdict(clustered_mean_interval(scores, clusters))
        interval.pop("replicates", None)
        return MetricRecord(
            number.name, float(scores.mean()), len(scores),
            total if number.group is None else len(scores),
            True, interval, "clip", "e" * 64, None, [], {}, number.group,
        )  # fmt: skip
    interval = None
    if number.value is not None and number.reach is not None:
        interval = {"low": number.value - number.reach, "high": number.value + number.reach,
                    "level": 0.95, "method": SET_METHOD, "covers": COVERS_SET}  # fmt: skip
    return MetricRecord(
        number.name, number.value, total if number.n is None else number.n, total,
        number.higher_is_better, interval, number.extractor, number.fingerprint,
        {"name": called, "n": 500}, [] if number.value is not None else ["it did not work"],
        {}, number.group, _replicates(number, total),
    )  # fmt: skip


def _replicates(number: SetNumber, total: int) -> dict[str, Any] | None:
    if number.left_out is None:
        return None
    count = len(number.left_out)
    sizes = list(number.sizes or [total // count] * count)
    return {"value": number.value, "left_out": list(number.left_out), "sizes": sizes,
            "extra_variance": 0.0}  # fmt: skip
