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


def write(runs: Mapping[str, Run], numbered: Mapping[str, Run], folder: Path) -> list[Path]:
    """`results.parquet` of the runs that have numbers, and `samples.parquet` of all."""
    results, samples = folder / "results.parquet", folder / "samples.parquet"
    write_parquet(results_table(numbered), results)
    write_parquet(samples_table(runs), samples)
    return [results, samples]


def write_parquet(table: pa.Table, path: Path) -> None:
    """Replace a file by a table."""
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)
    write_atomically(path, out.getvalue())
