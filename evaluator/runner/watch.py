"""A run as it goes on: how fast each worker is, who is slowest, and when it will be done."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from evaluator.runner.progress import duration
from evaluator.runner.status import Status, is_there, read_status
from evaluator.store.claims import Claim, Claims, Worker
from evaluator.store.rundir import RunDirectory

WINDOW_SECONDS = 300.0
"""Speeds are over so much time, or since the watch began: a shard's commit comes in a lump."""


class _Look(NamedTuple):
    """What every worker had done at one moment."""

    at: float
    done: Mapping[str, int]


@dataclass
class Watch:
    """Looks at a run again and again; others write to it meanwhile."""

    run: RunDirectory
    clock: Callable[[], float] = time.monotonic
    _done: dict[str, int] = field(default_factory=dict)
    """Worker → samples it was seen to finish."""
    _seen: dict[tuple[str, int], int] = field(default_factory=dict)
    """(task, attempt) → samples it had when it was looked at last."""
    _looks: deque[_Look] = field(default_factory=deque)
    _settled: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._claims = Claims(self.run.claims_folder, Worker.current(), lease_seconds=600)

    def look(self) -> tuple[Status, list[str]]:
        """The state of the run, and lines that tell it."""
        there = is_there(self.run)
        # What was committed since the last look is read once more: its claim says who made it.
        skip = self._settled
        attempts = self._claims.attempts(skip=lambda task: task in skip)
        self._count(attempts)
        self._settled |= {task for task in attempts if there(task)}
        open_tasks = {task: claims for task, claims in attempts.items() if not there(task)}
        status = read_status(self.run, open_tasks)
        return status, [*status.lines()[:1], *self._lines(status), *status.troubles()]

    def _count(self, attempts: Mapping[str, list[Claim]]) -> None:
        for task, claims in attempts.items():
            for claim in claims:
                if claim.worker is None or not task.isdecimal():
                    continue
                name, place = claim.worker.name, (task, claim.attempt)
                # What was there when the watch began is nobody's progress in it.
                before = self._seen.get(place, 0 if self._looks else claim.done)
                self._done[name] = self._done.get(name, 0) + max(0, claim.done - before)
                self._seen[place] = claim.done
        self._looks.append(_Look(self.clock(), dict(self._done)))
        while len(self._looks) > 2 and self._looks[1].at <= self._looks[-1].at - WINDOW_SECONDS:
            self._looks.popleft()

    def rates(self) -> dict[str, float]:
        """Worker → images a second, lately."""
        first, last = self._looks[0], self._looks[-1]
        seconds = last.at - first.at
        if seconds <= 0:
            return {}
        return {name: (n - first.done.get(name, 0)) / seconds for name, n in last.done.items()}

    def _lines(self, status: Status) -> list[str]:
        rates = self.rates()
        live = {c.worker.name: (t, c) for t, c in sorted(status.working.items()) if c.worker}
        left = status.num_samples - status.committed_samples
        left -= sum(claim.done for task, claim in status.working.items() if task.isdecimal())
        total = sum(rates.values())
        parts = [
            f"{len(status.working)} in work",
            f"{len(status.put_off)} put off",
            f"{len(status.set_aside)} set aside",
        ]
        if total > 0:
            parts.append(f"{total:.1f} images/s")
            parts.append(f"{duration(max(left, 0) / total)} left")
        lines = [f"  {', '.join(parts)}"]
        for name, (task, claim) in sorted(live.items()):
            lines.append(
                f"  {name}: {rates.get(name, 0.0):.2f} images/s, shard {task}, {claim.done} done, "
                f"{claim.age:.0f} s ago"
            )
        if len(live) > 1 and rates:
            slowest = min(live, key=lambda name: rates.get(name, 0.0))
            lines.append(f"  slowest: {slowest} with {rates.get(slowest, 0.0):.2f} images/s")
        return lines
