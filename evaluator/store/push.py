"""Copying what is finished of a run to a remote store, while others may still work on it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from evaluator.durable import explained_in_run, sha256_file
from evaluator.errors import CorruptShardError, EvaluatorError
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
    write_manifest,
)
from evaluator.store.quarantine import inode
from evaluator.store.rundir import RunDirectory

LOOKS = 3
"""How often a shard is looked at anew that changed while it was read."""
SAVE_SECONDS = 30.0
"""How often the list of what was pushed is put, so that an interrupted push is not begun anew."""


_MEND = (
    "it was not pushed: `evaluator status RUN --verify` sets it apart, the same `evaluator run`"
    " makes it anew, then push again"
)


def push_run(
    run: RunDirectory, remote: RemotePath, *, tell: Callable[[str], None] = lambda line: None
) -> Mirrored:
    """Copy committed shards, numbers and report to a store; what is there already is left.

    May be called again at any time, also while workers write and after an interruption. A shard
    whose files are not what was committed is not copied, and named among the faults. Raises
    RunDirectoryError when another run, or something else, is there.
    """
    push = _Push(run, remote, tell)
    try:
        push.init()
        push.shards()
        push.rest()
    finally:
        if push.manifest != push.known:
            write_manifest(remote, push.manifest)
    return push.checked()


class _Push:
    def __init__(self, run: RunDirectory, remote: RemotePath, tell: Callable[[str], None]) -> None:
        self.run, self.remote, self.tell = run, remote, tell
        self.listed: Mapping[str, Stored] = remote.files()
        self.manifest = read_manifest(remote, self.listed)
        self.known = dict(self.manifest)
        """The list as it is in the store."""
        self.there: dict[int, list[str]] = {}
        """Shard → names of its files, all of which are in the store."""
        self.faults: list[str] = []
        self.num_files = self.num_bytes = 0

    def init(self) -> None:
        """Put the plan and what the run was made with, unless they are there."""
        if self.listed and not any(name in self.listed for name in INIT):
            raise other_run(self.remote, f"other files, such as {next(iter(self.listed))!r}")
        for name in INIT:
            content = self.run.init_file(name.removeprefix("init/"))
            if name not in self.listed:
                self._put_content(name, content)
            elif not self._is_there(name, _pushed(content)) and (
                self.listed[name].size != len(content)
                or (self.remote / name).read_bytes() != content
            ):
                raise other_run(self.remote, f"another run ({name} differs)")
            else:
                self.manifest[name] = _pushed(content)

    def shards(self) -> None:
        """Put every committed shard, a few at the same time."""
        committed = self.run.committed()
        saved = told = time.monotonic()
        with ThreadPoolExecutor(NUM_CONNECTIONS, thread_name_prefix="push") as threads:
            try:
                for number, (index, files) in enumerate(threads.map(self._shard, committed), 1):
                    self._note(index, files)
                    now = time.monotonic()
                    if now - saved > SAVE_SECONDS:
                        write_manifest(self.remote, self.manifest)
                        saved = now
                    if now - told > SAVE_SECONDS / 3:
                        self.tell(f"{number}/{len(committed)} committed shards looked at")
                        told = now
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise

    def rest(self) -> None:
        """Put everything else that others may want to read: it may change from push to push."""
        # What is not here any more is no part of the run, though the store may keep it.
        for name in [name for name in self.manifest if not name.startswith(("init/", "shards/"))]:
            if not (self.run.path / name).exists():
                del self.manifest[name]
        for path in _rest(self.run.path):
            name = path.relative_to(self.run.path).as_posix()
            with suppress(FileNotFoundError):
                # Else a report that is being replaced: the next push has the new one.
                self._put_newest(name, path)

    def checked(self) -> Mirrored:
        """Look once more at what the store holds now."""
        listed = self.remote.files()
        for name, pushed in sorted(self.manifest.items()):
            if not name.startswith(("init/", "shards/")):
                continue  # somebody else may push a newer one just now
            size = listed[name].size if name in listed else None
            if size != pushed.size:
                self.faults.append(f"{name}: expected {pushed.size} bytes in the store, got {size}")
        complete = [
            index for index, names in self.there.items()
            if all(f"shards/{index:05d}/{name}" in listed for name in names)
        ]  # fmt: skip
        return Mirrored(
            len(complete), self.run.num_shards, self.num_files, self.num_bytes, tuple(self.faults)
        )

    def _shard(self, index: int) -> tuple[int, dict[str, Pushed] | str | None]:
        """Put one shard; returns its files, or why it could not be, or None if it is gone."""
        folder = self.run.shard_path(index)
        for _ in range(LOOKS):
            before = inode(folder)
            with explained_in_run("push", folder):
                try:
                    files = self._files(index, folder)
                    if inode(folder) == before:  # else some may be of the one before
                        return index, files
                except (CorruptShardError, FileNotFoundError) as error:
                    # Those who work put a damaged shard, or a late table, into quarantine.
                    if not (folder / COMMIT).exists():
                        return index, None
                    if isinstance(error, CorruptShardError) and inode(folder) == before:
                        return index, str(error)
        return index, (
            f"{folder}: expected files that stay as they are, got others at each of {LOOKS} looks: "
            "somebody mends the shard just now; push again"
        )

    def _files(self, index: int, folder: Path) -> dict[str, Pushed]:
        """Put one shard's files; FileNotFoundError where it was set apart meanwhile."""
        committed = read_record(folder, where=folder, mend=_MEND)
        names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        if missing := sorted(committed.names - set(names)):
            raise CorruptShardError(
                f"{folder / missing[0]}: expected a file that was committed, got nothing"
                f" there; {_MEND}"
            )
        hashes = committed.sha256
        names.sort(key=lambda name: name == COMMIT)  # it says that the others are there
        record = self.manifest.get(f"shards/{index:05d}/{COMMIT}")
        # Files of a shard never change, so those that were pushed need not be read again; but a
        # shard may have been set apart and made again.
        same = record == _pushed((folder / COMMIT).read_bytes())
        return {
            name: self._file(index, name, hashes.get(name), may_be_known=same) for name in names
        }

    def _file(self, index: int, name: str, committed: str | None, *, may_be_known: bool) -> Pushed:
        path, remote = self.run.shard_path(index) / name, f"shards/{index:05d}/{name}"
        size = path.stat().st_size
        known = self.manifest.get(remote)
        if (
            may_be_known
            and known is not None
            and known.size == size
            and committed in (None, known.sha256)
            and self._is_there(remote, known)
        ):
            return known
        sha256 = sha256_file(path)
        if committed is not None and sha256 != committed:
            raise CorruptShardError(f"{path}: expected SHA-256 {committed}, got {sha256}; {_MEND}")
        # No record has the checksum of some, but their pages have: damage would stay for ever.
        paged = committed is None and name.endswith(".parquet")
        if paged and (fault := self.run.files(index).fault_of_table(name)):
            raise CorruptShardError(f"{fault.rstrip('.')}; {_MEND}")
        try:
            (self.remote / remote).put(path)
        except EvaluatorError as error:
            if path.exists():
                raise
            raise FileNotFoundError(path) from error  # not the store's fault
        return Pushed(size, sha256)

    def _note(self, index: int, files: dict[str, Pushed] | str | None) -> None:
        if isinstance(files, str):
            self.faults.append(files)
        if not isinstance(files, dict):
            return
        self.there[index] = list(files)
        for name, pushed in files.items():
            remote = f"shards/{index:05d}/{name}"
            if not self._is_there(remote, pushed):
                self.num_files += 1
                self.num_bytes += pushed.size
            self.manifest[remote] = pushed

    def _is_there(self, name: str, pushed: Pushed) -> bool:
        """Whether a file was pushed before, and is there with its size."""
        listed = self.listed.get(name)
        return listed is not None and (listed.size, self.manifest.get(name)) == (
            pushed.size, pushed,
        )  # fmt: skip

    def _put_newest(self, name: str, path: Path) -> None:
        """Put a file that may be replaced at any time, unless it is there.

        Another push may have put a newer one before this one's arrives: a look afterwards sees to
        it that whichever comes last is the newest, and not only said to be.
        """
        content = path.read_bytes()
        if self._is_there(name, _pushed(content)):
            return
        for _ in range(LOOKS):
            self._put_content(name, content)
            before, content = content, path.read_bytes()
            if content == before:
                return

    def _put_content(self, name: str, content: bytes) -> None:
        (self.remote / name).write_bytes(content)
        self.manifest[name] = _pushed(content)
        self.num_files += 1
        self.num_bytes += len(content)


def _pushed(content: bytes) -> Pushed:
    return Pushed(len(content), hashlib.sha256(content).hexdigest())


def _rest(path: Path) -> Iterator[Path]:
    """The files of a run directory beside plan and shards; hidden ones are on their way."""
    with explained_in_run("list", path):
        for item in sorted(path.iterdir()):
            if item.name.startswith(".") or item.name in (*NOT_MIRRORED, "init", "shards"):
                continue
            if item.name == MANIFEST or item.is_symlink():
                continue
            below = sorted(item.rglob("*")) if item.is_dir() else [item]
            for file in below:
                hidden = any(p.startswith(".") for p in file.relative_to(path).parts)
                if file.is_file() and not hidden:
                    yield file
