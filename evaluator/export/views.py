"""Every table of one or more runs as a view for SQL: opened late, read as far as it is needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.dataset as ds

from evaluator.errors import CorruptShardError, EvaluatorError
from evaluator.export.tidy import results_table
from evaluator.runs import Run
from evaluator.runs.tables import feature_files, metric_files, table_names
from evaluator.store import schemas

_UNSAFE = re.compile(r"[^A-Za-z0-9_]+")

Opened: TypeAlias = "ds.Dataset | pa.Table"
"""What DuckDB takes: files that are read when a query needs them, or a small table."""


@dataclass(frozen=True, slots=True)
class View:
    """One table over all runs that have it."""

    name: str
    parts: tuple[tuple[str, Callable[[], Opened]], ...]
    """Name of a run, and what opens its part; opening reads no rows."""
    several: bool
    """Whether a column says which run a row is of."""

    def register(self, connection: Any) -> None:
        """Make it known to a connection under its name."""
        if not self.several:
            connection.register(self.name, self.parts[0][1]())
            return
        selects = []
        for i, (run, opened) in enumerate(self.parts):
            part = f"_{self.name}_{i}"
            connection.register(part, opened())
            quoted = run.replace("'", "''")
            selects.append(f"SELECT '{quoted}' AS run, * FROM \"{part}\"")  # noqa: S608 - quoted
        body = " UNION ALL BY NAME ".join(selects)
        connection.execute(f'CREATE VIEW "{self.name}" AS {body}')


def views_of(runs: Mapping[str, Run]) -> dict[str, View]:
    """All views over some runs: `samples`, `plan`, `metrics`, `features_clip`, and so on."""
    found: dict[str, list[tuple[str, Callable[[], Opened]]]] = {}
    for name, run in runs.items():
        taken: set[str] = set()
        for called, opened in _parts(run):
            unique = called
            while unique in taken:
                unique += "_"
            taken.add(unique)
            found.setdefault(unique, []).append((name, opened))
    several = len(runs) > 1
    return {name: View(name, tuple(parts), several) for name, parts in sorted(found.items())}


def _parts(run: Run) -> Iterator[tuple[str, Callable[[], Opened]]]:
    directory = run.directory
    yield "plan", partial(_dataset, [directory.path / "init" / "plan.parquet"], "plan")
    for kind in table_names(directory):
        yield _safe(kind), partial(_shards, run, f"{kind}.parquet", kind)
    files = feature_files(directory)
    for file in files:
        twice = sum(other.extractor == file.extractor for other in files) > 1
        called = f"{file.extractor}_{file.fingerprint}" if twice else file.extractor
        yield _safe(f"features_{called}"), partial(_shards, run, file.file_name, "features")
    for metric, path in metric_files(directory).items():
        yield _safe(f"scores_{metric}"), partial(_dataset, [path], "metric")
    if (directory.path / "schedule.parquet").exists():
        yield "schedule", partial(_dataset, [directory.path / "schedule.parquet"], "schedule")
    yield "metrics", partial(_metrics, run)


def _safe(name: str) -> str:
    """A name that SQL takes without quotes."""
    return _UNSAFE.sub("_", name)


def _metrics(run: Run) -> pa.Table:
    """The numbers; none where metrics.json cannot be had."""
    try:
        return results_table({run.name: run}).drop_columns(["run"])
    except EvaluatorError:
        return results_table({}).drop_columns(["run"])


def _shards(run: Run, file_name: str, kind: str) -> ds.Dataset:
    directory, paths = run.directory, []
    for index in directory.committed():
        path = directory.shard_path(index) / file_name
        if path.exists():
            paths.append(path)
        else:  # never made for this shard, or lost: then an answer without it would be wrong
            directory.files(index).require_never_there(file_name)
    return _dataset(paths, kind)


def _dataset(paths: Iterable[Path], kind: str) -> ds.Dataset:
    """Files as one table: half precision widened, columns of newer schemas null in older files."""
    files = list(paths)
    schema = schemas.read_schema(files[0])
    version = schemas.schema_note(schema).get("version", 0)
    if not isinstance(version, int) or version > schemas.VERSION:
        raise CorruptShardError(
            f"{files[0]}: expected a table '{kind}' of version {schemas.VERSION} or older, got "
            f"version {version}. A newer evaluator may have written it: use that one."
        )
    fields = [field.with_type(schemas.widened(field.type)).with_nullable(True) for field in schema]
    known = {field.name for field in fields}
    fields += [f for f in schemas.COMPLETED.get(kind, ()) if f.name not in known]
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    return ds.dataset(
        [str(file) for file in files],
        schema=pa.schema(fields),
        format=ds.ParquetFileFormat(default_fragment_scan_options=checked),
    )
