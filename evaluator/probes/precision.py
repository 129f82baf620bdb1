"""What a table's statistics are stored as: float32, or half of it.

float16 keeps eleven bits of each number: within 4.9e-4 of it, or within 3e-8 where it is below
6.1e-5. What is larger than 65504 (`peak_ratio`, where more positions than that are looked at from
one) would become infinite: it is null instead, and the row's note says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from evaluator.errors import ConfigError

DTYPES = ("float16", "float32")
LARGEST = 65504
"""The largest number that float16 holds."""


def parse_dtype(value: str) -> str:
    """`float16` or `float32`; ConfigError on anything else."""
    if value not in DTYPES:
        raise ConfigError(f"dtype: expected one of {', '.join(DTYPES)}; got {value!r}.")
    return value


def stored(table: pa.Table, names: Sequence[str], dtype: str) -> pa.Table:
    """The table with its columns `names` (float32, or lists of it) as `dtype`; rows stay.

    Rounded to nearest, ties to even. Where a finite number is too large for it, there is null and,
    in tables with a `note`, the reason.
    """
    if dtype == "float32":
        return table
    too_large: dict[str, np.ndarray] = {}
    for name in names:
        place = table.schema.get_field_index(name)
        column = table.column(name).combine_chunks()
        if pa.types.is_list(column.type):
            values, _ = _halved(column.flatten())
            offsets = column.offsets.to_numpy()
            column = pa.ListArray.from_arrays(pa.array(offsets - offsets[0]), values)
        else:
            column, outside = _halved(column)
            if outside.any():
                too_large[name] = outside
        table = table.set_column(place, pa.field(name, column.type), column)
    return _with_notes(table, too_large) if too_large else table


def _halved(column: Any) -> tuple[pa.Array, np.ndarray]:
    """The column as float16, and where it held finite numbers that are too large."""
    null = column.is_null().to_numpy(zero_copy_only=False)
    wide = column.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        half = wide.astype(np.float16)
    outside = np.isinf(half) & np.isfinite(wide) & ~null
    return pa.array(half, pa.float16(), mask=null | outside), outside


def _with_notes(table: pa.Table, too_large: dict[str, np.ndarray]) -> pa.Table:
    if "note" not in table.column_names:
        return table
    notes = table.column("note").to_pylist()
    for name, outside in too_large.items():
        for row in np.flatnonzero(outside):
            said = f"{name} is above {LARGEST}, which float16 cannot hold"
            notes[row] = f"{notes[row]}; {said}" if notes[row] else said
    field = table.schema.field("note")
    return table.set_column(
        table.schema.get_field_index("note"), field, pa.array(notes, field.type)
    )
