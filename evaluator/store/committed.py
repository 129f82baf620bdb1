"""One committed shard: reading its tables, and finding out whether it is as it was committed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from evaluator.durable import explained_in_run, sha256_file
from evaluator.errors import CorruptShardError, NewerTableError
from evaluator.store import schemas

COMMIT_FORMAT = 1
"""Version of commit.json."""

COMMIT = "commit.json"
"""What was committed together: row counts and checksums."""

IMAGES = "images.tar"
"""The kept images of a shard."""

UNCHECKED = frozenset({"timings.parquet"})
"""Files that differ between two runs of the same plan; commit.json does not hold their hash."""

MEND = (
    "`evaluator status RUN --verify` sets apart what is damaged, and the same `evaluator run` "
    "command then makes it again."
)
"""What a user does about a damaged shard."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What commit.json of a shard says: the files committed with it."""

    rows: Mapping[str, int | None]
    """File name → rows; None for a file that is no table."""
    sha256: Mapping[str, str]
    """File name → SHA-256; files that may differ between equal runs are left out."""


def write_commit(staged: Path, rows: Mapping[str, int | None]) -> None:
    """Write commit.json of a filled folder; `rows` names its files."""
    with explained_in_run("commit", staged):
        hashes = {n: sha256_file(staged / n) for n in sorted(rows) if n not in UNCHECKED}
        record = {"format": COMMIT_FORMAT, "rows": dict(sorted(rows.items())), "sha256": hashes}
        content = json.dumps(record, indent=1, sort_keys=True).encode()
        (staged / COMMIT).write_bytes(content)


@dataclass(frozen=True, slots=True)
class CommittedShard:
    """The directory of a committed shard."""

    path: Path
    num_samples: int
    """As planned."""

    @property
    def record(self) -> Commit:
        """What was committed; CorruptShardError where that cannot be read."""
        path = self.path / COMMIT
        try:
            with explained_in_run("read", path):
                content = path.read_bytes() if path.is_file() else b""
            record = json.loads(content)
            if isinstance(found := record.get("format", 1), int) and found > COMMIT_FORMAT:
                raise NewerTableError(
                    f"{path}: expected format {COMMIT_FORMAT} or older, got {found}. A newer "
                    "evaluator may have written it: use that one.",
                    self.path,
                )
            return Commit(record["rows"], record["sha256"])
        except NewerTableError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(
                f"{path}: expected the record of a committed shard, got {error!r}."
            ) from error

    def read(self, name: str, *, kind: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One table, checked against the plan's number of rows.

        Raises FileNotFoundError for a table that was never there, CorruptShardError for one that
        is not as it was committed.
        """
        with self._blamed(name):
            table = schemas.read_table(self.path / name, kind=kind, columns=columns)
            if kind in ("samples", "features") and table.num_rows != self.num_samples:
                raise CorruptShardError(
                    f"{self.path / name}: expected {self.num_samples} rows as planned, got "
                    f"{table.num_rows}."
                )
        return table

    def schema(self, name: str) -> pa.Schema:
        """The columns of a table; raises as `read` does."""
        with self._blamed(name):
            return schemas.read_schema(self.path / name)

    def require_never_there(self, name: str) -> None:
        """Raise CorruptShardError when a missing file was committed with the shard."""
        if name in self.record.rows:
            raise self._damaged(
                f"{self.path / name}: expected a file that was committed, got nothing there."
            )

    def lacks_files(self) -> bool:
        """Whether commit.json cannot be read, or names a file that is not there; reads no other."""
        try:
            expected = self.record.rows.keys()
            with explained_in_run("list", self.path):
                return not expected <= set(os.listdir(self.path))
        except CorruptShardError:
            return True  # `damage` says what is wrong with it
        except FileNotFoundError:
            return False  # somebody set it apart just now

    def damage(self, *, images: bool = True) -> dict[str, str]:
        """File → what is wrong with it; everything is read, the images only with `images`."""
        try:
            committed = self.record
        except NewerTableError:
            return {}  # nothing that making the shard again would mend
        except CorruptShardError as error:
            return {COMMIT: str(error)}
        found: dict[str, str] = {}
        for name in committed.rows:
            if not (self.path / name).is_file():
                found[name] = "expected a file that was committed, got nothing there"
            elif name in committed.sha256 and (images or name != IMAGES):
                with explained_in_run("read", self.path / name):
                    expected, got = committed.sha256[name], sha256_file(self.path / name)
                if got != expected:
                    found[name] = f"expected SHA-256 {expected}, got {got}"
        for file in self.path.glob("*.parquet"):
            if file.name not in committed.sha256 and (fault := self.fault_of_table(file.name)):
                found[file.name] = fault
        return found

    def verify(self) -> None:
        """Check every file; raises CorruptShardError with all that is wrong."""
        if found := self.damage():
            faults = "; ".join(f"{name}: {fault}" for name, fault in sorted(found.items()))
            raise self._damaged(f"{self.path}: {faults}.")

    def verified_images(self) -> Path:
        """The kept images, checked against their checksum."""
        path = self.path / IMAGES
        expected = self.record.sha256.get(IMAGES)
        with explained_in_run("read", path):
            got = sha256_file(path) if path.is_file() else "no file"
        if got != expected:
            raise self._damaged(f"{path}: expected SHA-256 {expected}, got {got}.")
        return path

    def fault_of_table(self, name: str) -> str | None:
        """What is wrong with a table that has page checksums only: timings, or a late one."""
        try:
            kind = str(schemas.table_note(self.path / name).get("kind"))
            self.read(name, kind=kind)
        except NewerTableError:
            return None
        except CorruptShardError as error:
            return str(error).removesuffix(f" {MEND}")
        return None

    @contextmanager
    def _blamed(self, name: str) -> Iterator[None]:
        """Say of which shard a file is damaged or gone, and what mends it."""
        try:
            yield
        except FileNotFoundError:
            self.require_never_there(name)
            raise
        except NewerTableError as error:
            raise NewerTableError(str(error), self.path) from error
        except CorruptShardError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, message: str) -> CorruptShardError:
        return CorruptShardError(f"{message} {MEND}", self.path)
