"""One pass over a run's committed shards: each is read once, and only what the page shows is kept.

Memory does not grow with the run: counts, sums, the first pictures, and the values of at most
`MAX_OBSERVED` samples for the curves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from evaluator.errors import CorruptShardError
from evaluator.probes.stabilization import COLUMNS as NOISE_COLUMNS
from evaluator.probes.stabilization import NoiseContent
from evaluator.report.census import Census, Timings
from evaluator.report.curves import (
    ATTENTION_MEASURES,
    LATENT_MEASURES,
    AttentionCurves,
    LatentCurves,
)
from evaluator.report.gallery import Gallery
from evaluator.report.heatmaps import COLUMNS as HEAT_COLUMNS
from evaluator.report.heatmaps import LAYER_COLUMNS, MAX_LAYER_BYTES, HeatMaps
from evaluator.report.text import plain
from evaluator.report.token_steps import TokenSteps, token_steps
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory

MAX_OBSERVED = 16_384
"""Samples whose attention and latents enter the curves; of larger runs, evenly spaced shards."""

MAX_FAULTS = 20

_SAMPLES = ("key", "image_index", "seed", "prompt", "truncated", "error")
_ATTENTION = ("key", "image_index", "step", "log_snr", "layer", "token", "token_text", "word",
              "branch", *ATTENTION_MEASURES)  # fmt: skip
_LATENTS = tuple(dict.fromkeys(("nonfinite", *LATENT_MEASURES, *NOISE_COLUMNS)))


@dataclass
class Survey:
    """What the pass found."""

    census: Census
    gallery: Gallery
    heat: HeatMaps
    timings: Timings = field(default_factory=Timings)
    attention: AttentionCurves = field(default_factory=AttentionCurves)
    latents: LatentCurves = field(default_factory=LatentCurves)
    noise: NoiseContent = field(default_factory=NoiseContent)
    tokens: TokenSteps | None = None
    schedule: pa.Table | None = None
    every: int = 1
    """Every how manieth committed shard the curves are from."""
    kept_images: bool = False
    """Whether any committed shard kept its images."""
    faults: list[str] = field(default_factory=list)
    """Files that could not be read, and why."""


def survey(run: RunDirectory, folder: Path) -> Survey:
    """Read the run; pictures are written into `folder` as they are met."""
    committed = [index for index in run.committed() if index < run.num_shards]
    census = Census(planned=run.num_samples, num_shards=run.num_shards)
    found = Survey(census, Gallery(folder), HeatMaps(folder))
    found.every = _every(run, len(committed))
    for number, index in enumerate(committed):
        _read_shard(run, index, found, with_curves=number % found.every == 0)
    try:
        path = run.path / "schedule.parquet"
        found.schedule = schemas.read_table(path, kind="schedule") if path.exists() else None
    except CorruptShardError as error:
        _note(found, error)
    return found


def _every(run: RunDirectory, num_committed: int) -> int:
    size = -(-run.num_samples // max(1, run.num_shards))
    return max(1, -(-num_committed * size // MAX_OBSERVED))


def _read_shard(run: RunDirectory, index: int, found: Survey, *, with_curves: bool) -> None:
    samples = _optional(run, index, "samples", _SAMPLES, found)
    if samples is None:
        return
    found.census.add(samples)
    start, tar = run.shard_starts[index], run.shard_path(index) / "images.tar"
    found.kept_images = found.kept_images or tar.exists()
    if not found.gallery.full:
        found.gallery.add(samples, tar, start)
    if found.heat.layers is None:
        _add_layers(run, index, samples, found)
    if (timings := _optional(run, index, "timings", None, found)) is not None:
        found.timings.add(timings)
    if not found.heat.full:
        heat = _optional(run, index, "heatmaps", HEAT_COLUMNS, found)
        if heat is not None and set(HEAT_COLUMNS) <= set(heat.column_names):
            found.heat.add(heat, samples, tar, start)
    if with_curves:
        if (attention := _optional(run, index, "attention", _ATTENTION, found)) is not None:
            found.attention.add(attention)
            found.tokens = found.tokens or token_steps(attention, samples)
        if (latents := _optional(run, index, "latents", _LATENTS, found)) is not None:
            found.latents.add(latents)
            found.noise.add(latents)


def _add_layers(run: RunDirectory, index: int, samples: pa.Table, found: Survey) -> None:
    """Heat maps by layer, unless the file is larger than a report can hold."""
    path = run.shard_path(index) / "heatmaps_layers.parquet"
    if path.exists() and path.stat().st_size <= MAX_LAYER_BYTES:
        maps = _optional(run, index, "heatmaps_layers", LAYER_COLUMNS, found)
        if maps is not None and set(LAYER_COLUMNS) <= set(maps.column_names):
            found.heat.add_layers(maps, samples, run.shard_path(index) / "images.tar")


def _optional(
    run: RunDirectory, index: int, kind: str, columns: tuple[str, ...] | None, found: Survey
) -> pa.Table | None:
    """A table of a shard, with those of `columns` that it has; None when it cannot be had."""
    try:
        return run.read(index, f"{kind}.parquet", kind=kind, columns=columns)
    except FileNotFoundError:
        if kind == "samples":
            found.faults.append(f"shard {index:05d} has no samples.parquet")
    except CorruptShardError as error:
        _note(found, error)
    return None


def _note(found: Survey, error: CorruptShardError) -> None:
    if len(found.faults) < MAX_FAULTS:
        found.faults.append(plain(error, limit=500))
