"""What a metric says of each sample: a table beside metrics.json, with the nearest images named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from evaluator.aggregate.asked import ReferencePlace
from evaluator.data import open_pack
from evaluator.errors import EvaluatorError
from evaluator.store.rundir import RunDirectory
from evaluator.store.schemas import samplewise_schema

if TYPE_CHECKING:
    from evaluator.metrics.results import SampleRows

_FILE_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")


def write_sample_rows(
    run: RunDirectory, name: str, rows: SampleRows, place: ReferencePlace | None
) -> None:
    """Write `metrics/<name>.parquet`: one row for each judged sample, in plan order.

    The note in its metadata has `means`: name of a number → `column`, `factor` and `offset` of
    the `MeanOf` that gives it.
    """
    if not _FILE_NAME.match(name):
        return  # a metric of the user's own may be called anything
    samples = run.plan.take(pa.array(rows.positions))
    table = samples.select(["key", "image_index"])
    for column, values in rows.columns.items():
        table = table.append_column(column, pa.array(values))
    if rows.nearest is not None and place is not None and place.run is not None:
        nearest = RunDirectory.open(Path(place.run)).plan.take(pa.array(rows.nearest))
        keys = nearest.column("key")
        table = table.append_column("nearest_key", keys)
        table = table.append_column("nearest_image_index", nearest.column("image_index"))
        table = table.append_column("nearest_name", _original_names(keys, place.pack))
    scores = {column: table.schema.field(column).type for column in rows.columns}
    named = "nearest_key" in table.column_names
    means = {number: mean._asdict() for number, mean in rows.means.items()}
    run.write_metric_table(
        name, table.cast(samplewise_schema(scores, nearest=named)), {"means": means}
    )


def _original_names(keys: pa.ChunkedArray, pack: str | None) -> pa.Array:
    """What the source called these images; null where their pack is gone."""
    unknown = pa.nulls(len(keys), pa.string())
    if pack is None:
        return unknown
    try:
        images = open_pack(Path(pack))
        names = {key: images.original(key) for key in set(keys.to_pylist())}
    except EvaluatorError:
        return unknown
    return pa.array([names[key] for key in keys.to_pylist()], pa.string())
