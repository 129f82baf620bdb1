"""Leases on shards: they save wasted work, and nothing depends on them for correctness.

`claims/00007.0` is the first attempt at shard 7, `claims/00007.1` the second. An attempt begins
by creating its file with O_EXCL, so it has one owner. The owner rewrites the file after every
batch: that renews the lease and says how far it is. A lease lapses when its file did not change
for the time that its owner allowed itself, by the file system's own clock or by that of a process
that watched it (machines' clocks are never compared), or at once when its owner was a process of
this machine that is gone.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from evaluator.durable import explained_in_run
from evaluator.errors import StorageError
from evaluator.store.workers import Worker as Worker

MAX_ATTEMPTS = 3
"""Attempts that ended at the same point, after which a task is set aside."""

UNWRITTEN_SECONDS = 30.0
"""Seconds after which the owner of a claim that it created and never wrote is taken for dead.

Network file systems may show a new file as empty for a while."""

_UNWRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT}

_ATTEMPT = re.compile(r"(?P<task>.+)\.(?P<attempt>\d+)\Z")

State = Literal["held", "released", "failed", "done", "forgiven"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt at one task, as its file says."""

    task: str
    attempt: int
    worker: Worker | None = None
    state: State = "held"
    done: int = 0
    """Samples finished in this attempt."""
    error: str | None = None
    age: float = 0.0
    """Seconds since the last sign of progress."""
    allowance: float = 0.0
    """Seconds without progress after which the lease lapses."""
    launch: str | None = None
    """The launch command that its worker belongs to, where it is known."""

    @property
    def lapsed(self) -> bool:
        """Held by nobody any more, though never released."""
        if self.state != "held":
            return False
        return self.age > self.allowance or (self.worker is not None and self.worker.is_gone())

    @property
    def live(self) -> bool:
        """Held by somebody who is still working on it."""
        return self.state == "held" and not self.lapsed


class Claims:
    """The leases of one run directory, seen by one worker."""

    def __init__(
        self, folder: Path, worker: Worker, *, lease_seconds: float, launch: str | None = None
    ) -> None:
        self.folder = folder
        self.worker = worker
        self.lease_seconds = lease_seconds
        self.launch = launch
        self._seen: dict[str, tuple[float, float]] = {}

    def attempts(self, skip: Callable[[str], bool] = lambda task: False) -> dict[str, list[Claim]]:
        """Task → its attempts in order, for every task that was ever claimed.

        Files of tasks for which `skip` is true are not read.
        """
        found: dict[str, list[Claim]] = {}
        now = self._file_system_time()
        with explained_in_run("list", self.folder), os.scandir(self.folder) as entries:
            for entry in entries:
                match = _ATTEMPT.match(entry.name)
                if match is None or entry.name.startswith(".") or skip(match["task"]):
                    continue
                claim = self._read(match["task"], int(match["attempt"]), now)
                if claim is not None:
                    found.setdefault(claim.task, []).append(claim)
        for claims in found.values():
            claims.sort(key=lambda claim: claim.attempt)
        return found

    def of(self, task: str) -> list[Claim]:
        """The attempts at one task, in order."""
        now = self._file_system_time()
        claims: list[Claim] = []
        while (claim := self._read(task, len(claims), now)) is not None:
            claims.append(claim)
        return claims

    def take(
        self, task: str, *, alone: bool = False, allowance: float | None = None
    ) -> Claim | None:
        """Begin an attempt at `task`; None when somebody holds it or it failed too often.

        The last try is begun with `alone` only. `allowance` is how many seconds the first sign of
        progress may take; None: as long as any other.
        """
        attempts = self.of(task)
        if (attempts and attempts[-1].live) or is_set_aside(attempts):
            return None
        if is_last_try(attempts) and not alone:
            return None
        seconds = self.lease_seconds if allowance is None else allowance
        claim = Claim(task, len(attempts), self.worker, allowance=seconds, launch=self.launch)
        return claim if self._create(claim) else None

    def forgive(self, task: str) -> bool:
        """Let a task that was set aside be tried again; returns whether it was.

        Once a launch: what another process of it forgave or tried stays set aside.
        """
        attempts = self.of(task)
        known = self.launch is not None and any(c.launch == self.launch for c in attempts)
        if known or not is_set_aside(attempts):
            return False
        forgiven = Claim(task, len(attempts), self.worker, state="forgiven", launch=self.launch)
        return self._create(forgiven)

    def _create(self, claim: Claim) -> bool:
        """Write a new attempt's file; False where another process was first."""
        path = self._path(claim)
        with explained_in_run("claim", path):
            try:
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return False
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(self._encode(claim))
            except OSError:
                path.unlink(missing_ok=True)
                raise
        return True

    def renew(self, claim: Claim, *, done: int) -> Claim:
        """Progress was made: `done` samples of the shard are finished."""
        return self._write(replace(claim, done=done, allowance=self.lease_seconds))

    def release(self, claim: Claim) -> None:
        """Give the task back untouched; counts as no attempt."""
        try:
            self._write(replace(claim, state="released"))
        except StorageError:
            # A full disk takes no new file, but it lets go of one: the task is free all the same.
            with explained_in_run("release", self._path(claim)):
                self._path(claim).unlink(missing_ok=True)
            raise

    def fail(self, claim: Claim, error: str) -> None:
        """Give the task back with the reason why it failed; counts as an attempt."""
        self._write(replace(claim, state="failed", error=error[:2000]))

    def finish(self, claim: Claim, *, done: int) -> None:
        """The task is committed."""
        self._write(replace(claim, state="done", done=done))

    def _path(self, claim: Claim) -> Path:
        return self.folder / f"{claim.task}.{claim.attempt}"

    def _encode(self, claim: Claim) -> bytes:
        record = {
            "worker": asdict(claim.worker) if claim.worker else None,
            "state": claim.state,
            "done": claim.done,
            "error": claim.error,
            "allowance": claim.allowance,
            "launch": claim.launch,
        }
        return json.dumps(record).encode()

    def _write(self, claim: Claim) -> Claim:
        path = self._path(claim)
        aside = self.folder / f".{path.name}.{uuid.uuid4().hex}"
        with explained_in_run("renew the lease", path):
            try:
                aside.write_bytes(self._encode(claim))
                os.replace(aside, path)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
        return claim

    def _read(self, task: str, attempt: int, now: float) -> Claim | None:
        path = self.folder / f"{task}.{attempt}"
        found = self._stat_and_read(path)
        if found is None:
            return None
        age, content = self._age(path.name, found[0], now), found[1]
        try:
            record = json.loads(content)
        except ValueError:
            # Its owner has created the file and not yet written it, or died in between.
            allowance = min(self.lease_seconds, UNWRITTEN_SECONDS)
            return Claim(task, attempt, None, age=age, allowance=allowance)
        worker = Worker(**record["worker"]) if record["worker"] else None
        return Claim(
            task, attempt, worker, record["state"], record["done"], record["error"], age,
            record["allowance"], record.get("launch"),
        )  # fmt: skip

    def _age(self, name: str, modified: float, now: float) -> float:
        """Seconds without a change, by the file system's clock or as this process watched it.

        A clock that was set back would otherwise keep a dead worker's lease alive.
        """
        watched = time.monotonic()
        if self._seen.get(name, (None, 0.0))[0] != modified:
            self._seen[name] = (modified, watched)
        return max(now - modified, watched - self._seen[name][1])

    def _stat_and_read(self, path: Path) -> tuple[float, bytes] | None:
        """Modification time and content; None where there is no such file.

        The owner replaces its file after every batch, so both are of one opened file: the old
        one's time with what the new one allows would be a lapse that never was. On a network file
        system a reader then meets a stale handle, and looks again.
        """
        with explained_in_run("read", path):
            for tries_left in reversed(range(5)):
                try:
                    with path.open("rb") as file:
                        return os.fstat(file.fileno()).st_mtime, file.read()
                except FileNotFoundError:
                    return None
                except OSError as error:
                    if error.errno != errno.ESTALE or not tries_left:
                        raise
        raise AssertionError("unreachable")

    def _file_system_time(self) -> float:
        """The file system's idea of now: the modification time of a file touched just now.

        Where none can be made, by who may only read or on a full disk, that is not known: then
        only what this process watches gets old.
        """
        clock = self.folder / f".clock-{self.worker.pid}-{uuid.uuid4().hex[:8]}"
        with explained_in_run("touch", clock):
            try:
                clock.touch()
            except OSError as error:
                if error.errno not in _UNWRITABLE:
                    raise
                return -math.inf
            try:
                return clock.stat().st_mtime
            finally:
                clock.unlink(missing_ok=True)


def counted(attempts: list[Claim]) -> list[Claim]:
    """The attempts that count against a task: those that failed or whose worker died.

    What was before it was last forgiven does not. An attempt that another followed had lapsed.
    """
    forgiven = max((i + 1 for i, c in enumerate(attempts) if c.state == "forgiven"), default=0)
    return [
        claim
        for claim in attempts[forgiven:]
        if claim.state == "failed"
        or claim.lapsed
        or (claim.state == "held" and claim is not attempts[-1])
    ]


def ends_at_one_point(attempts: list[Claim]) -> int:
    """How many of the last attempts that count ended where the very last one did.

    Workers that are killed at random die at different points; a shard that kills its workers
    does so at the same sample every time.
    """
    ends = [claim.done for claim in counted(attempts)]
    return next((i for i, done in enumerate(reversed(ends)) if done != ends[-1]), len(ends))


def is_last_try(attempts: list[Claim]) -> bool:
    """Whether one more end at the same point sets the task aside.

    It is made at the end and alone, where it harms no other work and none can be blamed for it.
    """
    return ends_at_one_point(attempts) == MAX_ATTEMPTS - 1


def is_set_aside(attempts: list[Claim]) -> bool:
    """Whether a task is left alone and reported: it ended `MAX_ATTEMPTS` times at one point."""
    return ends_at_one_point(attempts) >= MAX_ATTEMPTS


def last_error(attempts: list[Claim]) -> str:
    """Why the attempts that count failed, as the last of them that could say so did."""
    reasons = [claim.error for claim in counted(attempts) if claim.error]
    return reasons[-1] if reasons else "its workers died"
