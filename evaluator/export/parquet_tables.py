"""Parquet: the two tidy tables with their types."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evaluator.durable import write_atomically
from evaluator.export.tidy import results_table, samples_table
from evaluator.runs import Run


def files(runs: Mapping[str, Run], numbered: Mapping[str, Run]) -> dict[str, bytes]:
    """`results.parquet` of the runs that have numbers, and `samples.parquet` of all."""
    return {
        "results.parquet": _as_parquet(results_table(numbered)),
        "samples.parquet": _as_parquet(samples_table(runs)),
    }


def write_parquet(table: pa.Table, path: Path) -> None:
    """Replace a file by a table."""
    write_atomically(path, _as_parquet(table))


def _as_parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    return out.getvalue()
