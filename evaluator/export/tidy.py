"""Two tidy tables of any number of runs: their numbers, and their samples with all scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from evaluator.aggregate.summary import MetricRecord
from evaluator.runs import Run

RESULTS = pa.schema([
    pa.field("run", pa.string(), nullable=False),
    pa.field("metric", pa.string(), nullable=False),
    pa.field("tag", pa.string()),  # of the group of samples; null: all of them
    pa.field("tag_value", pa.string()),
    pa.field("value", pa.float64()),
    pa.field("low", pa.float64()),
    pa.field("high", pa.float64()),
    pa.field("level", pa.float64()),
    pa.field("interval_covers", pa.string()),
    pa.field("interval_method", pa.string()),
    pa.field("higher_is_better", pa.bool_()),
    pa.field("n", pa.int64(), nullable=False),
    pa.field("n_expected", pa.int64(), nullable=False),
    pa.field("extractor", pa.string()),
    pa.field("fingerprint", pa.string()),
    pa.field("reference", pa.string()),
    pa.field("reference_n", pa.int64()),
    pa.field("details", pa.string()),  # JSON
    pa.field("warnings", pa.list_(pa.string())),
])  # fmt: skip


def results_table(runs: Mapping[str, Run]) -> pa.Table:
    """One row a number, in the order of the runs and of their metrics.

    Raises RunDirectoryError where a run's metrics.json cannot be had.
    """
    rows = [row for name, run in runs.items() for row in _rows(name, run)]
    return pa.Table.from_pylist(rows, schema=RESULTS)


def _rows(name: str, run: Run) -> Iterator[dict[str, Any]]:
    for metric in run.metrics:
        yield {"run": name, **result_row(metric)}


def result_row(metric: MetricRecord) -> dict[str, Any]:
    """One number as a row of the table, without its run."""
    interval, reference = metric.interval or {}, metric.reference or {}
    tag, value = next(iter((metric.group or {}).items()), (None, None))
    return {
        "metric": metric.name,
        "tag": tag,
        "tag_value": value,
        "value": metric.value,
        "low": interval.get("low"),
        "high": interval.get("high"),
        "level": interval.get("level"),
        "interval_covers": interval.get("covers"),
        "interval_method": interval.get("method"),
        "higher_is_better": metric.higher_is_better,
        "n": metric.n,
        "n_expected": metric.n_expected,
        "extractor": metric.extractor,
        "fingerprint": metric.fingerprint,
        "reference": reference.get("name"),
        "reference_n": reference.get("n"),
        "details": json.dumps(metric.details, sort_keys=True, ensure_ascii=False),
        "warnings": list(metric.warnings),
    }


def samples_table(runs: Mapping[str, Run]) -> pa.Table:
    """One row a sample with all per-sample scores; a score that a run lacks is null there."""
    parts = []
    for name, run in runs.items():
        table = run.scored_samples
        named = pa.array([name] * table.num_rows, pa.string())
        parts.append(table.add_column(0, "run", named).replace_schema_metadata(None))
    return pa.concat_tables(parts, promote_options="permissive")
