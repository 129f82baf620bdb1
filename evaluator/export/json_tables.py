"""JSON that any reader takes: no NaN, one object a row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from evaluator.errors import ConfigError
from evaluator.export.tidy import results_table, samples_table
from evaluator.runs import Run

FORMAT = 1
"""Version of results.json."""


def files(runs: Mapping[str, Run], numbered: Mapping[str, Run]) -> dict[str, bytes]:
    """`results.json` of the runs that have numbers, and `samples.jsonl` of all, a line a sample."""
    results = []
    for record in records(results_table(numbered)):
        results.append({**record, "details": json.loads(record["details"])})
    about = [
        {"name": name, "samples": len(run), "samples_expected": run.num_planned,
         "complete": run.complete}
        for name, run in runs.items()
    ]  # fmt: skip
    whole = {"format": FORMAT, "runs": about, "results": results}
    return {
        "results.json": (as_json(whole, indent=1) + "\n").encode(),
        "samples.jsonl": as_lines(samples_table(runs)).encode(),
    }


def as_lines(table: pa.Table) -> str:
    """One JSON object a row, each on its line."""
    return "".join(as_json(record) + "\n" for record in records(table))


def as_json(value: Any, *, indent: int | None = None) -> str:
    """JSON without NaN: what is not finite becomes null. ASCII: any terminal may show it."""
    return json.dumps(plain_value(value), allow_nan=False, indent=indent)


def records(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Column → value of each row; maps come as objects.

    Raises ConfigError where a value is beyond what Python holds: a date after the year 9999.
    """
    maps = [field.name for field in table.schema if pa.types.is_map(field.type)]
    try:
        rows = table.to_pylist()
    except OverflowError as error:
        raise ConfigError(
            f"expected values that Python can hold, got another ({error}); CAST it to VARCHAR in "
            "the SELECT, or write --parquet, which holds it."
        ) from error
    for record in rows:
        for name in maps:
            record[name] = None if record[name] is None else dict(record[name])
        yield record


def plain_value(value: Any) -> Any:
    """The value as JSON has it: NaN and infinities are null, what it does not know is text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): plain_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | bool) else str(value)
