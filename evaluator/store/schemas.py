"""The public layout of every table: columns, types, schema version. The only place that says it.

Every table starts with `key` (string) and `image_index` (int32) and keeps the order of the plan.
A table's schema version is in its Parquet metadata under `evaluator.schema`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evaluator.durable import explained_in_run
from evaluator.errors import CorruptShardError, NewerTableError

VERSION = 3
"""Version of all schemas here; a reader refuses a newer one, and fills in what an older one lacks.

2: `flaw` of samples, `micro_batch` of timings.
3: a row of timings is a batch, not a whole shard: `key`, `image_index`, `first_of_worker`.
"""

IDENTITY = (pa.field("key", pa.string(), nullable=False),
            pa.field("image_index", pa.int32(), nullable=False))  # fmt: skip

PLAN = pa.schema([
    pa.field("shard", pa.int32(), nullable=False),
    *IDENTITY,
    pa.field("seed", pa.int64(), nullable=False),
    pa.field("content", pa.string(), nullable=False),  # SHA-256 of the packed prompt or image
])  # fmt: skip

SAMPLES = pa.schema([
    *IDENTITY,
    pa.field("seed", pa.int64(), nullable=False),
    pa.field("prompt", pa.string()),
    pa.field("negative_prompt", pa.string()),
    pa.field("class_label", pa.int64()),
    pa.field("tags", pa.map_(pa.string(), pa.string())),
    pa.field("truncated", pa.bool_()),  # longer than the model's text encoder takes
    pa.field("height", pa.int32()),
    pa.field("width", pa.int32()),
    pa.field("pixels_sha256", pa.string()),  # of the (3, H, W) uint8 array
    pa.field("error", pa.string()),  # why there is no image; null where there is one
    pa.field("flaw", pa.string()),  # `black`: every pixel is 0; `non_finite`: and so no image
])  # fmt: skip

TIMINGS = pa.schema([
    pa.field("key", pa.string()),  # of the batch's first sample; null before version 3, and then
    pa.field("image_index", pa.int32()),  # the row is of a whole shard
    pa.field("stage", pa.string(), nullable=False),
    pa.field("seconds", pa.float64(), nullable=False),
    pa.field("samples", pa.int32(), nullable=False),  # in the batch, in the order of the plan
    pa.field("worker", pa.string(), nullable=False),
    pa.field("rank", pa.int32(), nullable=False),
    pa.field("device", pa.string(), nullable=False),
    pa.field("threads", pa.int32(), nullable=False),
    pa.field("batch_size", pa.int32(), nullable=False),
    pa.field("micro_batch", pa.int32()),  # samples that went through at once; null: no batches
    pa.field("first_of_worker", pa.bool_()),  # it compiles and warms up
])  # fmt: skip


def features_schema(
    outputs: Mapping[str, int],
    scores: Sequence[tuple[str, pa.DataType]],
    storage: str = "float32",
) -> pa.Schema:
    """Schema of one extractor's table.

    Each output is a FixedSizeList column of its own dimension, of `storage` float32 or float16;
    each per-sample score is a column after them. Both are null where the sample has an error.
    """
    number = {"float32": pa.float32(), "float16": pa.float16()}[storage]
    fields = [pa.field(name, pa.list_(number, dim)) for name, dim in outputs.items()]
    return pa.schema([*IDENTITY, *fields, *(pa.field(name, kind) for name, kind in scores)])


def samplewise_schema(scores: Mapping[str, pa.DataType], *, nearest: bool) -> pa.Schema:
    """Schema of `metrics/<name>.parquet`: what a metric says of each sample that it judged.

    `nearest` adds which sample of the reference is nearest, and what its source called it.
    """
    named = [pa.field("nearest_key", pa.string()), pa.field("nearest_image_index", pa.int32()),
             pa.field("nearest_name", pa.string())]  # fmt: skip
    fields = [pa.field(name, kind) for name, kind in scores.items()]
    return pa.schema([*IDENTITY, *fields, *(named if nearest else [])])


def features_name(extractor: str, fingerprint: str) -> str:
    """File name of an extractor's table: `features-<extractor>-<fp8>.parquet`."""
    return f"features-{extractor}-{fingerprint[:8]}.parquet"


def write_table(
    table: pa.Table,
    path: Path,
    *,
    kind: str,
    metadata: Mapping[str, object] | None = None,
    rows_in_group: int | None = None,
) -> None:
    """Write one table with page checksums, and its kind and schema version in the metadata.

    The bytes depend on the table and the version of pyarrow only. Only strings are dictionary
    encoded: on floats it costs time and space. float32 is stored byte by byte (byte-stream-split);
    float16 is not: DuckDB 2.0 and polars 1.35 cannot read it so.
    """
    note = {"kind": kind, "version": VERSION, **(metadata or {})}
    table = table.replace_schema_metadata({"evaluator.schema": json.dumps(note, sort_keys=True)})
    strings = [f.name for f in table.schema if _is_text(f.type)]
    with explained_in_run("write", path):
        pq.write_table(
            table,
            path,
            compression="zstd",
            use_dictionary=strings,
            use_byte_stream_split=[f.name for f in table.schema if f.type == pa.float32()],
            write_statistics=strings,
            write_page_checksum=True,
            store_schema=True,
            row_group_size=rows_in_group,
        )


def read_table(path: Path, *, kind: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one table, verifying page checksums and the schema version.

    Columns of float16, or of lists of it, come as float32: most of pyarrow's functions do not take
    float16. Vectors of a fixed length (features) come as they are.

    Raises CorruptShardError when the file is not what was written, FileNotFoundError when it is
    not there, StorageError when it cannot be read.
    """
    with _opened(path, kind) as file:
        table: pa.Table = file.read(columns=list(columns) if columns is not None else None)
        return _completed(_widened(table), kind, columns)


def read_rows(path: Path, start: int, stop: int, *, kind: str, columns: Sequence[str]) -> pa.Table:
    """Rows `start` to `stop` of a table, as `read_table` does; other row groups are not read."""
    with _opened(path, kind) as file:
        metadata, first, groups, before = file.metadata, 0, [], 0
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if first < stop and first + rows > start:
                groups.append(group)
            elif first + rows <= start:
                before = first + rows
            first += rows
        table: pa.Table = file.read_row_groups(groups, columns=list(columns))
        return _widened(table).slice(start - before, stop - start)


_COPY_INIT = " Copy init/ from where the run was made, or run into another directory."
"""The plan is in no shard that could be made again."""


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[pq.ParquetFile]:
    """A table that is open to be read; raises as `read_table` says, while it is read too."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            note = schema_note(file.schema_arrow)
            version = note.get("version", 0)
            if note.get("kind") != kind or not isinstance(version, int) or version > VERSION:
                newer = note.get("kind") == kind and isinstance(version, int)
                raise (NewerTableError if newer else CorruptShardError)(
                    f"{path}: expected a table '{kind}' of version {VERSION} or older, got "
                    f"'{note.get('kind')}' of version {version}. A newer evaluator may have "
                    "written it: use that one."
                )
            yield file
    except (FileNotFoundError, CorruptShardError):
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        _require_readable(error, path)
        raise CorruptShardError(
            f"{path}: expected the table '{kind}' as it was written, got a damaged file ({error})."
            + _COPY_INIT * (kind == "plan")
        ) from error


def read_schema(path: Path) -> pa.Schema:
    """The columns of a table; raises as `read_table` does."""
    try:
        return pq.read_schema(path)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException, ValueError) as error:
        _require_readable(error, path)
        raise CorruptShardError(
            f"{path}: expected a table as it was written, got a damaged file ({error})."
        ) from error


def _require_readable(error: Exception, path: Path) -> None:
    """Raise StorageError where the file system refused: that says nothing about the file."""
    if isinstance(error, OSError) and error.errno is not None:
        with explained_in_run("read", path):
            raise error


def table_note(path: Path) -> dict[str, object]:
    """What `write_table` noted in the metadata: kind, version, and the caller's own."""
    return schema_note(read_schema(path))


def schema_note(schema: pa.Schema) -> dict[str, object]:
    """The same, of columns that were read already."""
    note: dict[str, object] = json.loads((schema.metadata or {}).get(b"evaluator.schema", b"{}"))
    return note


COMPLETED: Mapping[str, pa.Schema] = {"samples": SAMPLES, "timings": TIMINGS}
"""Kind of table → columns of this version; an older table lacks some, and reads as null there."""


def widened(kind: pa.DataType) -> pa.DataType:
    """The type as which a column is read: float16, alone or in lists, comes as float32."""
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_list(kind) and pa.types.is_float16(kind.value_type):
        return pa.list_(pa.float32())
    return kind


def _widened(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        kind = widened(field.type)
        if kind != field.type:
            table = table.set_column(place, field.with_type(kind), table.column(place).cast(kind))
    return table


def _completed(table: pa.Table, kind: str, columns: Sequence[str] | None) -> pa.Table:
    """The table with nulls for columns that its version did not have yet."""
    for field in COMPLETED.get(kind, ()):
        if field.name not in table.column_names and (columns is None or field.name in columns):
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_dictionary(kind))
