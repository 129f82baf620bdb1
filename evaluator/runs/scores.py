"""What extractors and metrics say of each sample, beside the sample."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from evaluator.errors import CorruptShardError
from evaluator.runs.tables import FeatureFile, feature_files, metric_files, read_whole
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory

IDENTITY = ("key", "image_index")


def read_scores(run: RunDirectory, metric: str) -> pa.Table:
    """`metrics/<metric>.parquet`: key, image index, and what the metric says of that sample."""
    path = metric_files(run)[metric]
    try:
        return schemas.read_table(path, kind="metric")
    except CorruptShardError as error:
        raise CorruptShardError(f"{error} `evaluator aggregate RUN` writes it again.") from error


def with_scores(run: RunDirectory, samples: pa.Table) -> pa.Table:
    """The samples with a column for each per-sample score; null where a sample has none.

    A score of an extractor is called `clip.text_cosine`; one of a metric by the metric, and
    `metric.column` where the metric says several things of a sample.
    """
    for name, column in _columns(run, samples):
        if name not in samples.column_names:
            samples = samples.append_column(name, column)
    return samples


def _columns(run: RunDirectory, samples: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    there = feature_files(run)
    twice = {f.extractor for f in there if sum(g.extractor == f.extractor for g in there) > 1}
    for file in there:
        called = f"{file.extractor}-{file.fingerprint}" if file.extractor in twice else None
        for name in score_columns(run, file):
            table = read_whole(run, file.file_name, kind="features", columns=[*IDENTITY, name])
            yield f"{called or file.extractor}.{name}", table.column(name)  # rows of the samples
    for metric in metric_files(run):
        table = read_scores(run, metric)
        names = [name for name in table.column_names if name not in IDENTITY]
        placed = table.take(places(table, samples))
        for name in names:
            yield metric if len(names) == 1 else f"{metric}.{name}", placed.column(name)


def score_columns(run: RunDirectory, file: FeatureFile) -> list[str]:
    """The columns of an extractor's table that are one number, flag or text a sample."""
    schema = run.files(run.committed()[0]).schema(file.file_name)
    return [
        field.name
        for field in schema
        if field.name not in IDENTITY and not pa.types.is_nested(field.type)
    ]


def places(table: pa.Table, samples: pa.Table) -> pa.Array:
    """(samples,) row of `table` that is about each sample; null where none is."""
    rows = {pair: i for i, pair in enumerate(_pairs(table))}
    return pa.array([rows.get(pair) for pair in _pairs(samples)], pa.int64())


def _pairs(table: pa.Table) -> Iterator[tuple[str, int]]:
    key, index = (table.column(name).to_pylist() for name in IDENTITY)
    return zip(key, index, strict=True)
