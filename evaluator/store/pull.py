"""Copying a run back from a remote store: what comes out is a run directory like any other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from evaluator.durable import explained_in_run, publish_directory, sha256_file
from evaluator.errors import CorruptShardError, RunDirectoryError
from evaluator.locations import PULL, require_mounted
from evaluator.remote import RemotePath, Stored
from evaluator.store.mirror import (
    COMMIT,
    INIT,
    MANIFEST,
    NOT_MIRRORED,
    NUM_CONNECTIONS,
    Mirrored,
    Pushed,
    other_run,
    read_manifest,
    read_record,
    shards_in,
)
from evaluator.store.rundir import RunDirectory


def pull_run(
    remote: RemotePath, path: Path, *, tell: Callable[[str], None] = lambda line: None
) -> Mirrored:
    """Copy a run from a store into `path`; what is there already is left.

    Every shard is checked against its commit record before it appears. Shards that are still
    being pushed are left out; the same call fetches them later. Raises RunDirectoryError when the
    store holds no run, or `path` another one.
    """
    require_mounted(path, what="the copy", instead=PULL)
    listed = remote.files()
    missing = [name for name in INIT if name not in listed]
    if missing:
        found = f"no {missing[0]}" if listed else "nothing there"
        raise RunDirectoryError(
            f"{remote}: expected a run as `evaluator push` puts it there, got {found}; check the"
            " address"
        )
    # One look: another pull may make init/ meanwhile.
    names = {item.name for item in path.iterdir()} if path.exists() else set()
    if "init" not in names and (others := sorted(names - set(_FOLDERS))):
        raise other_run(path, f"a folder with other files ({', '.join(others[:3])})")
    with explained_in_run("create", path):
        for folder in _FOLDERS:
            (path / folder).mkdir(parents=True, exist_ok=True)
    pull = _Pull(remote, path, listed)
    with explained_in_run("pull into", path):
        pull.init()
        pull.shards(tell)
        pull.rest()
    return Mirrored(
        len(pull.run.committed()), pull.run.num_shards, pull.num_files, pull.num_bytes,
        tuple(pull.faults),
    )  # fmt: skip


_MEND = "remove the shard from the store and push the run again"
_FOLDERS = ("launches", "claims", "staging", "shards", "quarantine")


class _Pull:
    def __init__(self, remote: RemotePath, path: Path, listed: Mapping[str, Stored]) -> None:
        self.remote, self.listed, self.run = remote, listed, RunDirectory(path)
        self.manifest = read_manifest(remote, listed)
        self.faults: list[str] = []
        self.num_files = self.num_bytes = 0

    def init(self) -> None:
        """Fetch the plan and what the run was made with, or see that they are the same here."""
        staged = self.run.stage("init")
        for name in INIT:
            self._fetch(name, staged)
            self.num_files += 1
        if (self.run.path / "init").exists():
            for name in INIT:
                file = name.removeprefix("init/")
                if self.run.init_file(file) != (staged / file).read_bytes():
                    self.run.discard(staged)
                    raise other_run(self.run.path, f"another run ({name} differs)")
            self.run.discard(staged)
        else:
            publish_directory(staged, self.run.path / "init")

    def shards(self, tell: Callable[[str], None]) -> None:
        """Fetch the shards that are whole in the store, a few at the same time."""
        found = {
            index: names
            for index, names in shards_in(self.listed).items()
            if COMMIT in names and index < self.run.num_shards
        }
        with ThreadPoolExecutor(NUM_CONNECTIONS, thread_name_prefix="pull") as threads:
            try:
                for number, files in enumerate(threads.map(self._shard, found, found.values()), 1):
                    if isinstance(files, str):
                        self.faults.append(files)
                    else:
                        self.num_files += len(files)
                        self.num_bytes += sum(self.listed[name].size for name in files)
                    if number % 100 == 0:
                        tell(f"{number}/{len(found)} shards looked at")
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise

    def rest(self) -> None:
        """Fetch numbers, report and the like, where they differ from what is here."""
        for name in self.manifest or self.listed:
            top = name.partition("/")[0]
            if top in (*NOT_MIRRORED, "init", "shards") or name == MANIFEST or top[:1] == ".":
                continue
            if name not in self.listed:  # which also holds safe names only
                self.faults.append(f"{self.remote / name}: expected what was pushed, got nothing")
                continue
            here, pushed = self.run.path / name, self.manifest.get(name)
            if pushed is not None and here.is_file() and _known(here) == pushed:
                continue
            staged = self.run.stage("pulled")
            (self.remote / name).fetch(staged / here.name)
            if pushed is not None and _known(staged / here.name) != pushed:
                self.faults.append(
                    f"{self.remote / name}: expected what was pushed last, got something else; a"
                    " push may be going on, or it is damaged: pull again, or push again"
                )
            with explained_in_run("write", here):
                here.parent.mkdir(parents=True, exist_ok=True)
                os.replace(staged / here.name, here)
            self.run.discard(staged)
            self.num_files += 1
            self.num_bytes += self.listed[name].size

    def _shard(self, index: int, names: list[str]) -> list[str] | str:
        """Fetch what is missing of one shard; returns what was fetched, or what is wrong."""
        folder = f"shards/{index:05d}"
        try:
            if not self.run.is_committed(index):
                return self._whole_shard(index, [f"{folder}/{name}" for name in names])
            late = [name for name in names if not (self.run.path / folder / name).exists()]
            for name in late:
                staged = self.run.stage(f"{index:05d}")
                self.run.publish_late_table(index, self._fetch(f"{folder}/{name}", staged))
            return [f"{folder}/{name}" for name in late]
        except CorruptShardError as error:
            return str(error)

    def _whole_shard(self, index: int, names: list[str]) -> list[str]:
        staged = self.run.stage(f"{index:05d}")
        try:
            for name in names:
                self._fetch(name, staged)
            _require_committed(staged, self.remote / f"shards/{index:05d}")
            publish_directory(staged, self.run.shard_path(index))
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return names

    def _fetch(self, name: str, staged: Path) -> Path:
        """Fetch one file that never changes, and check it against the list of what was pushed."""
        to = staged / name.rpartition("/")[2]
        (self.remote / name).fetch(to)
        pushed = self.manifest.get(name)
        if to.stat().st_size != self.listed[name].size or (
            pushed is not None and sha256_file(to) != pushed.sha256
        ):
            raise CorruptShardError(
                f"{self.remote / name}: expected the bytes that were pushed, got others; remove it"
                " from the store and push the run again"
            )
        return to


def _known(path: Path) -> Pushed:
    return Pushed(path.stat().st_size, sha256_file(path))


def _require_committed(staged: Path, remote: RemotePath) -> None:
    """CorruptShardError unless all files of a shard are there, as they were committed."""
    record = read_record(staged, where=remote, mend=_MEND)
    for name in sorted(record.names | record.sha256.keys()):
        path = staged / name
        got = sha256_file(path) if path.is_file() else "no file"
        if got == "no file" or got != record.sha256.get(name, got):
            expected = record.sha256.get(name, "a file")
            raise CorruptShardError(
                f"{remote / name}: expected SHA-256 {expected}, got {got}; {_MEND}"
            )
