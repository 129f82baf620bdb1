"""Every number that a run holds of a single sample, in the order of the plan."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evaluator.errors import CorruptShardError
from evaluator.report.images import SampleId
from evaluator.report.text import number, plain
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory

MAX_SCORES = 32
"""Columns that are read; a run with more of them says so."""

SECONDS = "seconds"
OF_BATCH, OF_SHARD = "seconds to generate (mean of its batch)", "seconds (mean of its shard)"
"""What a sample's seconds are called: by batch, or as far as tables of before tell."""

_NEAREST = ("nearest_key", "nearest_image_index", "nearest_name")
_FEATURES = re.compile(r"features-(.+)-[0-9a-f]{8}\.parquet\Z")

Values = NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Score:
    """One column of numbers."""

    name: str
    """What it is called on the page: `clip text_cosine`."""
    file: str
    """The table that it is from, as the run's folder names it."""
    column: str
    values: Values
    """(N,) one for each planned sample; NaN where there is none."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """Which image of the reference a metric found nearest to each sample."""

    metric: str
    file: str
    names: dict[int, str]
    """Position in the plan → name of the image; fit to show."""
    table: str = ""
    """Name of the table, without its ending."""
    samples: dict[int, SampleId] = field(default_factory=dict)
    """Position in the plan → which sample of the reference it is."""
    said: dict[int, str] = field(default_factory=dict)
    """Position in the plan → the table's numbers of it: `similarity 0.98, memorized yes`."""


@dataclass
class Scores:
    """The columns met so far."""

    num_samples: int
    """Planned."""
    columns: dict[tuple[str, str], Score] = field(default_factory=dict)
    nearest: list[Nearest] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    """Columns beyond `MAX_SCORES`."""

    def add_shard(self, run: RunDirectory, index: int, say: Say) -> None:
        """Take the scores that extractors gave the samples of one shard."""
        start, stop = run.shard_starts[index], run.shard_starts[index + 1]
        for path in sorted(run.shard_path(index).glob("features-*.parquet")):
            match = _FEATURES.match(path.name)
            if match is None:
                continue
            try:
                names = scalar_columns(path)
                if not names:
                    continue
                table = run.read(index, path.name, kind="features", columns=names)
            except (CorruptShardError, FileNotFoundError) as error:
                say(plain(error, limit=500))
                continue
            for name in names:
                score = self._column(path.name, name, plain(f"{match[1]} {name}", limit=60))
                if score is not None:
                    score.values[start:stop] = as_floats(table.column(name))

    def add_seconds(self, start: int, stop: int, seconds: Values | float, shown: str) -> None:
        """Say how long the samples `start` to `stop` took: `OF_BATCH` of each, or `OF_SHARD`."""
        score = self._column("timings.parquet", SECONDS, shown, key=shown)
        if score is not None:
            score.values[start:stop] = seconds

    def add_metrics(self, run: RunDirectory, most: int, say: Say) -> None:
        """Take `metrics/*.parquet`; names of nearest images for the first `most` samples."""
        paths = sorted((run.path / "metrics").glob("*.parquet"))
        if not paths:
            return
        planned = pc.binary_join_element_wise(
            run.plan_column("key"), pc.cast(run.plan_column("image_index"), pa.string()), "/"
        ).combine_chunks()
        for path in paths:
            try:
                table = schemas.read_table(path, kind="metric")
                places = _places(table, planned)
            except (CorruptShardError, KeyError, pa.ArrowException) as error:
                say(plain(error, limit=500))
                continue
            for name in scalar_columns(path):
                shown = path.stem if path.stem.endswith(name) else f"{path.stem} {name}"
                score = self._column(f"metrics/{path.name}", name, plain(shown, limit=60))
                if score is not None:
                    score.values[places[places >= 0]] = as_floats(table.column(name))[places >= 0]
            if set(_NEAREST) <= set(table.column_names):
                self._add_nearest(path, table, places, most)

    def _add_nearest(
        self, path: Path, table: pa.Table, places: NDArray[np.int64], most: int
    ) -> None:
        kept = (places >= 0) & (places < most)
        rows = table.filter(pa.array(kept)).to_pylist()
        columns = scalar_columns(path)
        near = Nearest(plain(path.stem, limit=60), f"metrics/{path.name}", {}, path.stem)
        for place, row in zip(places[kept].tolist(), rows, strict=True):
            key, index, name = (row[column] for column in _NEAREST)
            near.names[place] = plain(name or f"{key} · {index}", limit=200)
            near.samples[place] = SampleId(str(key), int(index or 0))
            near.said[place] = ", ".join(f"{plain(c, limit=60)} {_said(row[c])}" for c in columns)
        self.nearest.append(near)

    def _column(self, file: str, name: str, shown: str, *, key: str = "") -> Score | None:
        """The column, made when it is met first; None beyond the limit.

        `key` tells numbers of one column apart that do not mean the same.
        """
        place = file, key or name
        found = self.columns.get(place)
        if found is None and len(self.columns) >= MAX_SCORES:
            self.left_out.add(shown)
        elif found is None:
            found = Score(shown, file, name, np.full(self.num_samples, np.nan))
            self.columns[place] = found
        return found

    def found(self) -> list[Score]:
        """Columns that have numbers which differ, seconds last; each with a name of its own."""
        kept = [score for score in self.columns.values() if _tells(score.values)]
        names = Counter(score.name for score in kept)
        told = [s if names[s.name] == 1 else replace(s, name=f"{s.name} ({s.file})") for s in kept]
        return sorted(told, key=lambda score: (score.column == SECONDS, score.file, score.column))


def _said(value: float | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value)


def _tells(values: Values) -> bool:
    finite = values[np.isfinite(values)]
    return bool(finite.size) and bool(finite.min() < finite.max() or finite.size == 1)


def scalar_columns(path: Path) -> list[str]:
    """Columns of a table that hold one number, or a yes or no, for each sample."""
    identity = {name.name for name in schemas.IDENTITY} | set(_NEAREST)
    return [
        column.name
        for column in schemas.read_schema(path)
        if column.name not in identity
        and (
            pa.types.is_floating(column.type)
            or pa.types.is_integer(column.type)
            or pa.types.is_boolean(column.type)
        )
    ]


def as_floats(column: pa.ChunkedArray) -> Values:
    """(N,) float64 with NaN for null; yes is 1."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values: Values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return np.array(values, dtype=np.float64)


def _places(table: pa.Table, planned: pa.Array) -> NDArray[np.int64]:
    """(N,) position in the plan of each row; -1 where the plan has no such sample."""
    names = pc.binary_join_element_wise(
        table.column("key"), pc.cast(table.column("image_index"), pa.string()), "/"
    )
    found = pc.fill_null(pc.index_in(names, value_set=planned), -1)
    return np.asarray(found.to_numpy(), dtype=np.int64)
