"""The index of a pack: one row for each tar member, in sample order, as a Parquet file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import InputError
from evaluator.records import is_safe_key

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

INDEX_NAME = "index.parquet"
INDEX_VERSION = 1
ROWS_IN_GROUP = 16_384
"""Rows that are read together: a worker reads little more than those of its shard."""

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


@dataclass
class Index:
    """The rows of a pack, and where each sample's rows begin."""

    path: Path
    kind: str
    """`packed` or `indexed`."""
    tars: Mapping[str, int]
    """Name of each tar → its size in bytes."""
    num_samples: int
    fingerprint: str | None = None
    """That of the content, where it was noted when the index was written."""
    group_rows: int | None = None
    """Rows of a row group, where each sample has one row; None: all rows are read at once."""
    loaded: pa.Table | None = None
    """All rows, where they were read already."""

    @cached_property
    def table(self) -> pa.Table:
        """All rows; columns as in `Row`."""
        return _read_all(self.path, self.tars) if self.loaded is None else self.loaded

    @cached_property
    def starts(self) -> np.ndarray:
        """(num_samples + 1,) int64: rows of sample i are `starts[i]` to `starts[i + 1]`."""
        return sample_starts(self.table)

    def rows(self, samples: range) -> list[list[Row]]:
        """The rows of each sample in a contiguous range; little more than them is read."""
        if not samples:
            return []
        if self.group_rows is not None and "table" not in vars(self):
            return [[row] for row in _rows(self._part(samples, self.group_rows))]
        starts = self.starts[samples.start : samples.stop + 1].tolist()
        rows = _rows(self.table.slice(starts[0], starts[-1] - starts[0]))
        return [rows[start - starts[0] : stop - starts[0]] for start, stop in pairwise(starts)]

    def prefix(self, limit: int) -> Index:
        """That of the first `limit` samples, or of all, if there are fewer."""
        num_samples = min(limit, self.num_samples)
        table = self.table.slice(0, int(self.starts[num_samples]))
        names = set(table["tar"].unique().to_pylist())
        tars = {name: size for name, size in self.tars.items() if name in names}
        return Index(self.path, self.kind, tars, num_samples, loaded=table)

    def _part(self, rows: range, size: int) -> pa.Table:
        import pyarrow.parquet as pq

        groups = range(rows.start // size, (rows.stop - 1) // size + 1)
        with (
            _readable(self.path),
            pq.ParquetFile(self.path, page_checksum_verification=True) as file,
        ):
            found = _plain(file.read_row_groups(list(groups)))
        found = found.slice(rows.start - groups.start * size, len(rows))
        _require_sound(found, self.tars, path=self.path, num_samples=len(rows))
        return found


def _rows(table: pa.Table) -> list[Row]:
    return [Row(*values) for values in zip(*table.to_pydict().values(), strict=True)]


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

    table = table.cast(index_schema())
    about = {
        "evaluator.table": "pack-index",
        "evaluator.version": str(INDEX_VERSION),
        "evaluator.kind": kind,
        "evaluator.tars": json.dumps(dict(sorted(tars.items())), separators=(",", ":")),
        "evaluator.samples": str(len(sample_starts(table)) - 1),
        "evaluator.fingerprint": index_fingerprint(table),
    }
    pq.write_table(
        table.replace_schema_metadata(about), folder / INDEX_NAME,
        compression="zstd", write_page_checksum=True, version="2.6", row_group_size=ROWS_IN_GROUP,
    )  # fmt: skip


def read_index(path: Path) -> Index:
    """Open an index; InputError if it is damaged, of another version, or unsafe.

    One with one row a sample is read as it is needed, and checked as far as it is read.
    """
    import pyarrow.parquet as pq

    with _readable(path):
        metadata = pq.read_metadata(path)
        about = {k.decode(): v.decode() for k, v in (metadata.metadata or {}).items()}
    version = about.get("evaluator.version")
    if about.get("evaluator.table") != "pack-index" or version != str(INDEX_VERSION):
        raise InputError(
            f"{path}: expected a pack index of version {INDEX_VERSION}, got version {version};"
            " pack the source again with this release"
        )
    tars = json.loads(about["evaluator.tars"])
    _require_inside(tars, path=path)

    kind, fingerprint = about["evaluator.kind"], about.get("evaluator.fingerprint")
    if fingerprint and about.get("evaluator.samples") == str(metadata.num_rows):
        size = metadata.row_group(0).num_rows  # that of all but the last
        return Index(path, kind, tars, metadata.num_rows, fingerprint, group_rows=size)
    table = _read_all(path, tars)
    return Index(path, kind, tars, len(sample_starts(table)) - 1, loaded=table)


def _read_all(path: Path, tars: Mapping[str, int]) -> pa.Table:
    import pyarrow.parquet as pq

    with _readable(path):
        table = _plain(pq.read_table(path, page_checksum_verification=True))
    num_samples = len(sample_starts(table)) - 1
    _require_sound(table, tars, path=path, num_samples=num_samples)
    return table


def sample_starts(table: pa.Table) -> np.ndarray:
    """Where the key changes: (num_samples + 1,) int64."""
    import numpy as np
    import pyarrow.compute as pc

    keys = table["key"].combine_chunks()
    if len(keys) == 0:
        return np.zeros(1, dtype=np.int64)
    changes = pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.flatnonzero(changes) + 1, [len(keys)]]).astype(np.int64)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """InputError for what is no index, or a damaged one."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: expected the index of a pack, got {error}; pack the source again"
        ) from error


def _plain(table: pa.Table) -> pa.Table:
    return table.select(Row._fields).cast(index_schema()).combine_chunks()


def _require_sound(
    table: pa.Table, tars: Mapping[str, int], *, path: Path, num_samples: int
) -> None:
    """InputError unless keys are safe and contiguous, and every tar is listed."""
    import pyarrow.compute as pc

    keys = pc.unique(table["key"])
    faults = []
    if table.num_rows == 0 or any(table[name].null_count for name in Row._fields):
        faults.append("no rows, or rows with nulls")
    elif len(keys) != num_samples:
        faults.append("rows of a sample that are not together")
    elif unsafe := [key for key in keys.to_pylist() if not is_safe_key(key)]:
        faults.append(f"the unsafe key {unsafe[0]!r}")
    elif not set(pc.unique(table["tar"]).to_pylist()) <= set(tars):
        faults.append("tars that it does not list")
    elif pc.min(table["offset"]).as_py() < 0 or pc.min(table["size"]).as_py() < 0:
        faults.append("negative offsets")
    if faults:
        raise InputError(f"{path}: expected a sound index, got {faults[0]}; pack again")


def _require_inside(tars: Mapping[str, int], *, path: Path) -> None:
    """InputError unless every tar is a relative name below the pack's folder."""
    for tar in tars:
        name = PurePosixPath(tar)
        if name.is_absolute() or ".." in name.parts:
            raise InputError(
                f"{path}: expected a sound index, got the tar {tar!r} outside its folder; pack "
                "again"
            )


def index_fingerprint(table: pa.Table) -> str:
    """SHA-256 over (key, part, sha256) of all rows in order: the content, not its place."""
    digest = hashlib.sha256()
    for batch in table.select(["key", "part", "sha256"]).to_batches(max_chunksize=65536):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        digest.update("".join("\x1f".join(row) + "\x1e" for row in rows).encode())
    return digest.hexdigest()
