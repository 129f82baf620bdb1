"""What the probes saw of single samples: curves of latents, and heat maps by word and step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from evaluator.errors import CorruptShardError
from evaluator.report.gallery import by_shard
from evaluator.report.heatmaps import (
    ALL_STEPS,
    COLUMNS,
    GRID_OPACITY,
    MAX_STEPS,
    MAX_WORDS,
    Map,
    by_word,
    overall,
    overlay,
    rows_of,
)
from evaluator.report.images import SampleId, read_images
from evaluator.report.text import plain
from evaluator.store.rundir import RunDirectory

MAX_NUMBERS = 240_000
"""Numbers of all curves together; more steps mean fewer samples."""

MAX_MAPS = 48
"""Samples whose heat maps by step are drawn."""

TILE = 64
"""Side of one heat map."""

CURVES = {
    "norm": "Norm of latents",
    "std": "Deviation of latents",
    "guidance_norm": "Strength of guidance, ‖c − u‖ / √d",
    "eps_std": "Deviation of predicted noise",
}
"""Columns of latents.parquet → what they are called."""

_IDENTITY = ("key", "image_index", "step")


class Strips(NamedTuple):
    """One sample's heat maps: a picture a word, in it a square for each column."""

    words: list[str]
    columns: list[str]
    """`all steps`, then steps."""


@dataclass
class Details:
    """Curves and maps of single samples, by position in the plan."""

    folder: Path
    steps: list[int] = field(default_factory=list)
    """Those of the curves, of all samples alike."""
    curves: dict[int, list[list[float | None]]] = field(default_factory=dict)
    """Position → for each of `measures`, a value for each of `steps`."""
    measures: list[str] = field(default_factory=list)
    """Columns that the table has."""
    maps: dict[int, Strips] = field(default_factory=dict)
    more_maps: bool = False
    """Whether further samples have heat maps, which are not drawn."""

    def write(self, run: RunDirectory, positions: list[int], say: Callable[[str], None]) -> None:
        """Read the curves and draw the maps of these samples, as many as fit."""
        for index, wanted in by_shard(run, positions):
            rows = run.plan_rows(index, columns=("key", "image_index"))
            names = list(zip(*(rows.column(i).to_pylist() for i in range(2)), strict=True))
            start = run.shard_starts[index]
            samples = {SampleId(*names[p - start]): p for p in wanted}
            if self._room(len(samples)):
                self._add_curves(_read(run, index, "latents", (*_IDENTITY, *CURVES), say), samples)
            if not self.more_maps:
                heat = _read(run, index, "heatmaps", COLUMNS, say)
                if heat is not None and set(COLUMNS) <= set(heat.column_names):
                    self._add_maps(run, index, heat, samples)

    def _room(self, more: int) -> bool:
        each = max(1, len(self.steps) * len(self.measures))
        return (len(self.curves) + more) * each <= MAX_NUMBERS or not self.curves

    def _add_curves(self, latents: pa.Table | None, samples: dict[SampleId, int]) -> None:
        if latents is None or not set(_IDENTITY) <= set(latents.column_names):
            return
        if not self.steps:
            self.steps = sorted(pc.unique(latents.column("step")).to_pylist())
            self.measures = [name for name in CURVES if name in latents.column_names]
        places = {step: i for i, step in enumerate(self.steps)}
        columns = [latents.column(name).to_pylist() for name in (*_IDENTITY, *self.measures)]
        for key, index, step, *values in zip(*columns, strict=True):
            position = samples.get(SampleId(key, index))
            if position is None or step not in places:
                continue
            empty: list[list[float | None]] = [[None] * len(self.steps) for _ in self.measures]
            curves = self.curves.setdefault(position, empty)
            for curve, value in zip(curves, values, strict=True):
                if value is not None and math.isfinite(value):
                    curve[places[step]] = float(f"{value:.5g}")

    def _add_maps(
        self, run: RunDirectory, index: int, heat: pa.Table, samples: dict[SampleId, int]
    ) -> None:
        keys, indices = (pc.unique(heat.column(name)) for name in ("key", "image_index"))
        having = [s for s in samples if s.key in set(keys.to_pylist())]
        having = [s for s in having if s.image_index in set(indices.to_pylist())]
        room = MAX_MAPS - len(self.maps)
        self.more_maps = len(having) > room
        tar = run.shard_path(index) / "images.tar"
        images = dict(read_images(tar, having[:room])) if having[:room] else {}
        for sample in having[:room]:
            self._draw(samples[sample], rows_of(heat, sample), images.get(sample))

    def _draw(
        self, position: int, rows: Sequence[dict[str, Any]], image: Image.Image | None
    ) -> None:
        steps = sorted({row["step"] for row in rows if row["step"] != ALL_STEPS})
        chosen = np.unique(np.linspace(0, len(steps) - 1, min(MAX_STEPS, len(steps))).round())
        steps = [steps[int(i)] for i in chosen]
        columns = [overall(rows)] + [
            by_word(row for row in rows if row["step"] == step) for step in steps
        ]
        words = sorted(columns[0])[:MAX_WORDS]
        if not words:
            return
        for i, word in enumerate(words):
            maps = [column[word][1] if word in column else None for column in columns]
            target = self.folder / f"maps/{position:06d}-{i:02d}.webp"
            target.parent.mkdir(exist_ok=True)
            _strip(maps, image).save(target, quality=80, method=2)
        names = [columns[0][word][0] for word in words]
        self.maps[position] = Strips(names, ["all steps", *(str(step) for step in steps)])

    def record(self) -> dict[str, Any]:
        """The same for the page's script."""
        return {
            "steps": self.steps,
            "measures": [CURVES[name] for name in self.measures],
            "curves": {str(position): curves for position, curves in self.curves.items()},
            "maps": {
                str(position): {"words": strips.words, "columns": strips.columns}
                for position, strips in self.maps.items()
            },
        }


def _strip(maps: Sequence[Map | None], image: Image.Image | None) -> Image.Image:
    """Squares side by side; nothing where a step has no map."""
    strip = Image.new("RGB", (TILE * len(maps), TILE))
    for i, values in enumerate(maps):
        if values is not None:
            strip.paste(overlay(values, image, TILE, opacity=GRID_OPACITY), (i * TILE, 0))
    return strip


def _read(
    run: RunDirectory, index: int, kind: str, columns: tuple[str, ...], say: Callable[[str], None]
) -> pa.Table | None:
    try:
        return run.read(index, f"{kind}.parquet", kind=kind, columns=columns)
    except FileNotFoundError:
        return None
    except CorruptShardError as error:
        say(plain(error, limit=500))
        return None
