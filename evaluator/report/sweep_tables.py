"""The numbers of a sweep as files: one row a point and metric."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evaluator.leaderboard import Cell
from evaluator.report.results import Result
from evaluator.report.sweep_points import MetricKey, SweepResults
from evaluator.report.sweep_ranks import Ranking
from evaluator.report.text import formula_safe, plain

FIELDS = (
    ("folder", pa.string()), ("metric", pa.string()), ("reference", pa.string()),
    ("tag", pa.string()), ("group", pa.string()), ("value", pa.float64()),
    ("low", pa.float64()), ("high", pa.float64()), ("level", pa.float64()),
    ("interval", pa.string()), ("higher_is_better", pa.bool_()), ("place", pa.int32()),
    ("rank_low", pa.int32()), ("rank_high", pa.int32()),
    ("n", pa.int64()), ("n_expected", pa.int64()), ("extractor", pa.string()),
    ("fingerprint", pa.string()), ("on_front", pa.bool_()),
)  # fmt: skip
"""Columns beside the swept settings, which come after the folder, each by its path."""


def rows_of(sweep: SweepResults, front: Sequence[bool], ranking: Ranking) -> list[dict[str, Any]]:
    """One row a point and metric, and one for each group; settings by their path."""
    rows = []
    for i, point in enumerate(sweep.points):
        about = {"folder": point.folder, "on_front": bool(front[i])}
        settings = {path: _cell(point.settings.get(path)) for path in sweep.paths}
        for metric, result in point.results.items():
            ranks = _ranks(ranking.cells.get((point.folder, metric)))
            rows.append({**about, **settings, **_numbers(metric, result), **ranks})
        for (metric, group), result in point.groups.items():
            of = {"tag": group.tag, "group": group.value}
            rows.append({**about, **settings, **_numbers(metric, result), **of})
    return rows


def _ranks(cell: Cell | None) -> dict[str, int | None]:
    if cell is None:
        return {}
    ends = (None, None) if cell.rank is None else (cell.rank.low, cell.rank.high)
    return {"place": cell.place, "rank_low": ends[0], "rank_high": ends[1]}


def _cell(value: object) -> object:
    return value if isinstance(value, int | float | str | None) else json.dumps(value, default=str)


def _numbers(metric: MetricKey, result: Result) -> dict[str, Any]:
    interval = result.interval
    return {
        "metric": metric.name,
        "reference": result.reference,
        "value": result.value,
        "low": interval and interval.low,
        "high": interval and interval.high,
        "level": interval and interval.level,
        "interval": interval and interval.meaning,
        "higher_is_better": result.higher_is_better,
        "n": result.num,
        "n_expected": result.num_expected,
        "extractor": result.extractor,
        "fingerprint": result.fingerprint,
    }


def write_tables(sweep: SweepResults, rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """The rows as CSV, fit to show and for no spreadsheet to compute, and as Parquet."""
    first, *rest = FIELDS
    names = [first[0], *sweep.paths, *(name for name, _ in rest)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([formula_safe(plain(name)) for name in names])
    for row in rows:
        cells = (row.get(name) for name in names)
        writer.writerow([formula_safe(plain(c)) if isinstance(c, str) else c for c in cells])
    (folder / "sweep.csv").write_text(out.getvalue(), encoding="utf-8")
    kinds = dict(FIELDS)
    columns = {
        name: pa.array([row.get(name) for row in rows], kinds[name])
        if name in kinds
        else _settings_column([row.get(name) for row in rows])
        for name in names
    }
    pq.write_table(pa.table(columns), folder / "sweep.parquet")


def _settings_column(values: Sequence[Any]) -> pa.Array:
    """Numbers where all are numbers, else text."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known):
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return pa.array(texts, pa.string())
