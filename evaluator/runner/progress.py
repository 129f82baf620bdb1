"""How far all workers are, with an ETA; a line at a time where the output is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from contextlib import suppress
from typing import TextIO

from evaluator.store.claims import Claims
from evaluator.store.rundir import RunDirectory
from evaluator.text import count_of

TERMINAL_SECONDS = 0.5
LINE_SECONDS = 15.0


class Progress:
    """Progress over all workers of a run, as the run directory shows it.

    Only the main process of a launch speaks. What it says comes from the claims and shards on
    disk, so that workers of other launches count too.
    """

    def __init__(
        self, run: RunDirectory, claims: Claims, *, label: str, speaks: bool,
        stream: TextIO | None = None,
    ) -> None:  # fmt: skip
        self._run = run
        self._claims = claims
        self._label = label
        self._speaks = speaks
        self._stream = stream or sys.stderr
        self._on_terminal = self._stream.isatty()
        self._committed: set[int] = set()
        self._began = time.monotonic()
        self._done_at_start: int | None = None
        self._last = 0.0
        self._last_line = ""

    def update(self, committed: Collection[int]) -> None:
        """Note which shards are committed."""
        self._committed = set(committed)
        self._show()

    def batch_done(self, shard: int, done: int) -> None:
        """Note that this worker finished `done` samples of its shard."""
        self._show()

    def say(self, message: str) -> None:
        """A line of its own, above the progress."""
        start = "\r\x1b[K" if self._on_terminal else ""
        self._write(f"{start}{message}\n")

    def end(self) -> None:
        """Leave the last state on the terminal."""
        self._show(force=True)
        if self._speaks and self._on_terminal:
            self._write("\n")

    def _write(self, text: str) -> None:
        # Who listened may be gone, the terminal or a pipe's other end: the work goes on.
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()

    def _show(self, *, force: bool = False) -> None:
        now = time.monotonic()
        interval = TERMINAL_SECONDS if self._on_terminal else LINE_SECONDS
        if not self._speaks or (now - self._last < interval and not force):
            return
        self._last = now
        line = self._line(now)
        if line == self._last_line:
            return
        self._last_line = line
        self._write(f"\r\x1b[K{line}" if self._on_terminal else f"{line}\n")

    def _line(self, now: float) -> str:
        self._committed = set(self._run.committed())
        attempts = self._claims.attempts(
            skip=lambda task: not task.isdecimal() or int(task) in self._committed
        )
        live = [claims[-1] for claims in attempts.values() if claims[-1].live]
        starts = self._run.shard_starts
        done = sum(starts[i + 1] - starts[i] for i in self._committed if i + 1 < len(starts))
        done += sum(claim.done for claim in live)
        if self._done_at_start is None:
            self._done_at_start = done
        planned = self._run.num_samples
        rate = (done - self._done_at_start) / max(now - self._began, 1e-9)
        left = f"{duration((planned - done) / rate)} left" if rate > 0 and done < planned else ""
        parts = [
            f"{self._label}: {done:,}/{count_of(planned, 'sample')}",
            f"{len(self._committed):,}/{count_of(self._run.num_shards, 'shard')}",
            f"{len(live)} in work",
            f"{rate:.1f} images/s" if rate > 0 else "",
            left,
        ]
        return ", ".join(part for part in parts if part)


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
