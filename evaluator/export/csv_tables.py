"""CSV that no spreadsheet computes: text cells cannot become formulas."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping

import pyarrow as pa

from evaluator.export.json_tables import plain_value, records
from evaluator.export.tidy import results_table, samples_table
from evaluator.runs import Run
from evaluator.text import formula_safe, visible, without_escapes

ROWS_AT_ONCE = 4096


def files(runs: Mapping[str, Run], numbered: Mapping[str, Run]) -> dict[str, bytes]:
    """`results.csv` of the runs that have numbers, and `samples.csv` of all."""
    made = {"results.csv": results_table(numbered)} if numbered else {}
    made["samples.csv"] = samples_table(runs)
    return {name: as_csv(table).encode() for name, table in made.items()}


def as_csv(table: pa.Table) -> str:
    """A header, then one line a row.

    Numbers have all their digits; lists of text are joined by `; `, other nested values are JSON.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_cell(name) for name in table.column_names])
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        for record in records(pa.Table.from_batches([batch])):
            writer.writerow([_cell(value) for value in record.values()])
    return out.getvalue()


def _cell(value: object) -> object:
    """Text without control characters, that starts no formula; numbers as they are."""
    value = plain_value(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = "; ".join(value)
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        return formula_safe(visible(without_escapes(value)))
    return value
