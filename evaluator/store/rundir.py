"""A run on disk: where things are, how they come to be there, and what counts as committed."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from evaluator.durable import (
    explained_in_run,
    publish_directory,
    publish_file,
    write_atomically,
)
from evaluator.errors import RunDirectoryError, StorageError
from evaluator.locations import PULL, require_mounted
from evaluator.records import Sample, Shard
from evaluator.store import schemas
from evaluator.store.committed import CommittedShard, write_commit

PLAN_ROWS_IN_GROUP = 16_384
"""Rows of the plan that are read together: a worker reads little more than its shard."""


class RunDirectory:
    """One run. Made by `open_or_create`, or opened to be read by `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """A run that exists. Raises RunDirectoryError where there is none."""
        require_mounted(path, what="the run directory", instead=PULL)
        if not (path / "init").is_dir():
            raise RunDirectoryError(
                f"{path}: expected a run directory (made by `evaluator run`), got "
                f"{_found_instead(path)}"
            )
        run = cls(path)
        _ = run.planned
        return run

    @classmethod
    def create(cls, path: Path, init: Mapping[str, bytes], plan: pa.Table) -> RunDirectory:
        """Publish `init/` by one rename; when another process was first, its init stands."""
        run = cls(path)
        if path.exists() and not (path / "init").exists() and _foreign_content(path):
            raise RunDirectoryError(
                f"{path}: expected a new or empty folder or a run directory, got a folder with "
                f"other files ({', '.join(_foreign_content(path)[:3])}). Choose another --output."
            )
        with explained_in_run("create", path):
            for folder in ("launches", "claims", "staging", "shards", "quarantine"):
                (path / folder).mkdir(parents=True, exist_ok=True)
            if (path / "init").exists():
                return run
            staged = path / "staging" / f"init.{uuid.uuid4().hex}"
            staged.mkdir()
            for name, content in init.items():
                (staged / name).write_bytes(content)
        schemas.write_table(
            plan, staged / "plan.parquet", kind="plan", rows_in_group=PLAN_ROWS_IN_GROUP
        )
        publish_directory(staged, path / "init")
        return run

    # -- what was planned ---------------------------------------------------------------------

    @property
    def claims_folder(self) -> Path:
        """Where leases are."""
        return self.path / "claims"

    @cached_property
    def planned(self) -> tuple[int, int]:
        """Which `init/` this is, as it was found: a run without results may be planned anew."""
        return self.planned_now()

    def planned_now(self) -> tuple[int, int]:
        """The same of the `init/` that is there now."""
        with explained_in_run("read", self.path / "init"):
            found = (self.path / "init").stat()
        return found.st_ino, found.st_mtime_ns

    def is_current(self) -> bool:
        """Whether the plan that is there is the one that this process began with."""
        try:
            return self.planned_now() == self.planned
        except StorageError:
            return False

    def init_file(self, name: str) -> bytes:
        """A file of `init/`: `config.yaml`, `provenance.json`."""
        with explained_in_run("read", self.path / "init" / name):
            return (self.path / "init" / name).read_bytes()

    @property
    def _plan_path(self) -> Path:
        path = self.path / "init" / "plan.parquet"
        with explained_in_run("read", path):
            path.stat()
        return path

    @cached_property
    def plan(self) -> pa.Table:
        """The whole plan: shard, key, image index, seed, content hash; one row a sample."""
        return schemas.read_table(self._plan_path, kind="plan")

    def plan_column(self, name: str) -> pa.ChunkedArray:
        """One column of the plan."""
        return schemas.read_table(self._plan_path, kind="plan", columns=[name]).column(name)

    @cached_property
    def num_samples(self) -> int:
        """Samples planned."""
        return self.shard_starts[-1]

    @cached_property
    def shard_starts(self) -> list[int]:
        """Position of the first sample of each shard, and the total at the end."""
        shards = self.plan_column("shard").to_numpy()
        changes = (shards[1:] != shards[:-1]).nonzero()[0] + 1
        return [0, *changes.tolist(), len(shards)] if len(shards) else [0]

    @property
    def num_shards(self) -> int:
        """Shards planned."""
        return len(self.shard_starts) - 1

    def plan_rows(self, index: int, *, columns: Sequence[str]) -> pa.Table:
        """The plan of one shard; of a large plan only this part is read."""
        start, stop = self.shard_starts[index], self.shard_starts[index + 1]
        return schemas.read_rows(self._plan_path, start, stop, kind="plan", columns=columns)

    def shard(self, index: int) -> Shard:
        """The samples of one shard, in the order of the plan."""
        names = ("key", "image_index", "seed")
        rows = self.plan_rows(index, columns=names)
        columns = [rows.column(name).to_pylist() for name in names]
        start = self.shard_starts[index]
        samples = (Sample(start + i, *row) for i, row in enumerate(zip(*columns, strict=True)))
        return Shard(index, tuple(samples))

    # -- what is committed --------------------------------------------------------------------

    def shard_path(self, index: int) -> Path:
        """Where a shard is, or will be, once committed."""
        return self.path / "shards" / f"{index:05d}"

    def is_committed(self, index: int) -> bool:
        """Whether a shard is committed."""
        return self.shard_path(index).is_dir()

    def committed(self) -> list[int]:
        """The committed shards, in order."""
        with explained_in_run("list", self.path / "shards"):
            names = os.listdir(self.path / "shards")
        return sorted(int(name) for name in names if name.isdecimal())

    def files(self, index: int) -> CommittedShard:
        """The files of a committed shard."""
        expected = self.shard_starts[index + 1] - self.shard_starts[index]
        return CommittedShard(self.shard_path(index), expected)

    def read(
        self, index: int, name: str, *, kind: str, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """One table of a committed shard, checked against the plan's number of rows."""
        return self.files(index).read(name, kind=kind, columns=columns)

    def verify(self, index: int) -> None:
        """Check every file of a committed shard; raises CorruptShardError with all faults."""
        self.files(index).verify()

    # -- committing ---------------------------------------------------------------------------

    def stage(self, name: str) -> Path:
        """A new empty folder to fill aside; `publish_shard` or `discard` ends its life."""
        folder = self.path / "staging" / f"{name}.{uuid.uuid4().hex[:12]}"
        with explained_in_run("create", folder):
            folder.mkdir()  # a run that vanished is not begun anew where it was mounted
        return folder

    def publish_shard(self, index: int, staged: Path, rows: Mapping[str, int | None]) -> bool:
        """Commit a filled folder as shard `index`; returns False when another copy was first."""
        if self.planned_now() != self.planned:
            raise RunDirectoryError(
                f"{self.path}: expected the plan that this process began with, got another: the "
                "run was planned anew meanwhile. Start this process again."
            )
        write_commit(staged, rows)
        return publish_directory(staged, self.shard_path(index))

    def note_flaws(self, index: int, flaws: Mapping[str, int]) -> None:
        """Say how many images of a shard, about to be committed, are black or not finite.

        The samples say so too: this is for those who cannot read all of them, as `status`.
        """
        path = self._flaws / f"{index:05d}.json"
        with explained_in_run("create", self._flaws):
            if not flaws:
                path.unlink(missing_ok=True)  # of a shard that was set apart, and made again
                return
            self._flaws.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(dict(flaws)).encode(), in_run=True)

    def flaws(self) -> dict[str, int]:
        """Flaw → how many images of the committed shards have it."""
        total: Counter[str] = Counter()
        for path in self._flaws.glob("[0-9]*.json"):
            with suppress(OSError, ValueError, TypeError):
                if self.is_committed(int(path.stem)):
                    total.update(json.loads(path.read_bytes()))
        return dict(total)

    @property
    def _flaws(self) -> Path:
        return self.path / "flaws"

    def publish_late_table(self, index: int, staged: Path) -> bool:
        """Link a table made after its shard was committed; it carries its own page checksums.

        Returns False when another copy was first, or the shard was set apart meanwhile.
        """
        try:
            return publish_file(staged, self.shard_path(index) / staged.name)
        except StorageError:
            if self.is_committed(index) or not (self.path / "shards").is_dir():
                raise
            return False
        finally:
            shutil.rmtree(staged.parent, ignore_errors=True)

    def discard(self, staged: Path) -> None:
        """Remove a staging folder that will not be committed."""
        shutil.rmtree(staged, ignore_errors=True)

    def record_launch(self, name: str, record: Mapping[str, Any]) -> None:
        """Note a start of the run: command, world size, host, device, what was asked."""
        content = json.dumps(record, indent=1, sort_keys=True).encode()
        write_atomically(self.path / "launches" / f"{name}.json", content, in_run=True)

    def launches(self) -> list[dict[str, Any]]:
        """Every recorded start, oldest first."""
        records = []
        for path in sorted((self.path / "launches").glob("[0-9]*.json")):
            try:
                records.append(json.loads(path.read_bytes()))
            except ValueError:
                continue  # a launch record is information; a damaged one stops nothing
        return records

    def write_metric_table(
        self, name: str, table: pa.Table, note: Mapping[str, object] | None = None
    ) -> None:
        """Replace `metrics/<name>.parquet`, what a metric says of each sample.

        `note` goes into its metadata.
        """
        staged = self.stage("metrics")
        schemas.write_table(table, staged / f"{name}.parquet", kind="metric", metadata=note)
        with explained_in_run("write", self.path / "metrics"):
            (self.path / "metrics").mkdir(exist_ok=True)
            os.replace(staged / f"{name}.parquet", self.path / "metrics" / f"{name}.parquet")
        self.discard(staged)

    def drop_metric_tables(self, *, but: Collection[str]) -> None:
        """Remove what metrics said that are asked for no more, or that have no number now."""
        with explained_in_run("clear", self.path / "metrics"):
            for table in (self.path / "metrics").glob("*.parquet"):
                if table.stem not in but:
                    table.unlink(missing_ok=True)

    def write(self, name: str, content: bytes) -> None:
        """Replace a file at the top of the run directory: `metrics.json`."""
        write_atomically(self.path / name, content, in_run=True)


def _foreign_content(path: Path) -> list[str]:
    ours = {
        "init",
        "launches",
        "claims",
        "staging",
        "shards",
        "quarantine",
        "report",
        "metrics",
        "flaws",
    }
    return sorted(p.name for p in path.iterdir() if p.name not in ours and p.name[0] != ".")


def _found_instead(path: Path) -> str:
    """What is at a path that is no run directory, and what to do."""
    lost = "Check the path, or start the run."
    if not path.exists():
        return f"nothing there. {lost}"
    if not path.is_dir() and path.suffix in (".yaml", ".yml"):
        return f"a configuration; its run is in its output/name, or where --output said. {lost}"
    if not path.is_dir():
        return f"a file. {lost}"
    if (path / "sweep.json").is_file():
        return "the folder of a sweep, which has one for each point. Name one of them."
    with explained_in_run("list", path):
        runs = sorted(each.name for each in path.iterdir() if (each / "init").is_dir())
    if runs:
        named = f"{', '.join(runs[:3])}{', …' * (len(runs) > 3)}"
        return f"a folder with {len(runs)} of them ({named}). Name one of them."
    return f"a folder without init/. {lost}"
