"""The index of a pack: one row for each tar member, in sample order, as a Parquet file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import InputError
from evaluator.records import is_safe_key

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

INDEX_NAME = "index.parquet"
INDEX_VERSION = 1

PACKED = "packed"
"""Written by `pack`: tars beside the index, a `json` part in each sample."""
INDEXED = "indexed"
"""Tars that somebody else wrote, left where they are."""


class Row(NamedTuple):
    """One tar member."""

    key: str
    part: str
    """Extension after the first dot: `json`, `png`, `init.png`."""
    tar: str
    """Name of the tar, relative to the tars' folder."""
    offset: int
    """Of the member's data in the tar, in bytes."""
    size: int
    """In bytes."""
    sha256: str
    """Of the data, hexadecimal."""
    original: str
    """What the source called it: a file's name, a line, a member's name."""


class Index(NamedTuple):
    """The rows of a pack, and where each sample's rows begin."""

    table: pa.Table
    """Columns as in `Row`."""
    starts: np.ndarray
    """(num_samples + 1,) int64: rows of sample i are `starts[i]` to `starts[i + 1]`."""
    kind: str
    """`packed` or `indexed`."""
    tars: Mapping[str, int]
    """Name of each tar → its size in bytes."""


def index_schema() -> pa.Schema:
    """Arrow schema of the rows."""
    import pyarrow as pa

    kinds = {"offset": pa.int64(), "size": pa.int64()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in Row._fields])


def rows_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as an Arrow table."""
    import pyarrow as pa

    columns = list(zip(*rows, strict=True)) or [()] * len(Row._fields)
    return pa.table([list(column) for column in columns], schema=index_schema())


def write_index(folder: Path, table: pa.Table, *, kind: str, tars: Mapping[str, int]) -> None:
    """Write `index.parquet`: the same rows give the same bytes."""
    import pyarrow.parquet as pq

    about = {
        "evaluator.table": "pack-index",
        "evaluator.version": str(INDEX_VERSION),
        "evaluator.kind": kind,
        "evaluator.tars": json.dumps(dict(sorted(tars.items())), separators=(",", ":")),
    }
    table = table.cast(index_schema()).replace_schema_metadata(about)
    pq.write_table(
        table, folder / INDEX_NAME, compression="zstd", write_page_checksum=True, version="2.6"
    )


def read_index(path: Path) -> Index:
    """Read and check an index; InputError if it is damaged, of another version, or unsafe."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
        about = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        table = table.select(Row._fields).cast(index_schema()).combine_chunks()
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: expected the index of a pack, got {error}; pack the source again"
        ) from error
    version = about.get("evaluator.version")
    if about.get("evaluator.table") != "pack-index" or version != str(INDEX_VERSION):
        raise InputError(
            f"{path}: expected a pack index of version {INDEX_VERSION}, got version {version};"
            " pack the source again with this release"
        )
    tars = json.loads(about["evaluator.tars"])
    index = Index(table, sample_starts(table), about["evaluator.kind"], tars)
    _require_sound(index, path=path)
    return index


def sample_starts(table: pa.Table) -> np.ndarray:
    """Where the key changes: (num_samples + 1,) int64."""
    import numpy as np
    import pyarrow.compute as pc

    keys = table["key"].combine_chunks()
    if len(keys) == 0:
        return np.zeros(1, dtype=np.int64)
    changes = pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.flatnonzero(changes) + 1, [len(keys)]]).astype(np.int64)


def _require_sound(index: Index, *, path: Path) -> None:
    """InputError unless keys are safe and contiguous, and every tar is a listed relative name."""
    import pyarrow.compute as pc

    table, num_samples = index.table, len(index.starts) - 1
    keys = pc.unique(table["key"])
    faults = []
    if table.num_rows == 0 or any(table[name].null_count for name in Row._fields):
        faults.append("no rows, or rows with nulls")
    elif len(keys) != num_samples:
        faults.append("rows of a sample that are not together")
    elif unsafe := [key for key in keys.to_pylist() if not is_safe_key(key)]:
        faults.append(f"the unsafe key {unsafe[0]!r}")
    elif not set(pc.unique(table["tar"]).to_pylist()) <= set(index.tars):
        faults.append("tars that it does not list")
    elif pc.min(table["offset"]).as_py() < 0 or pc.min(table["size"]).as_py() < 0:
        faults.append("negative offsets")
    for tar in index.tars:
        name = PurePosixPath(tar)
        if name.is_absolute() or ".." in name.parts:
            faults.append(f"the tar {tar!r} outside its folder")
    if faults:
        raise InputError(f"{path}: expected a sound index, got {faults[0]}; pack again")


def index_fingerprint(table: pa.Table) -> str:
    """SHA-256 over (key, part, sha256) of all rows in order: the content, not its place."""
    digest = hashlib.sha256()
    for batch in table.select(["key", "part", "sha256"]).to_batches(max_chunksize=65536):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        digest.update("".join("\x1f".join(row) + "\x1e" for row in rows).encode())
    return digest.hexdigest()
