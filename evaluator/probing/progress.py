"""A line now and then while a verb works; on a terminal one line that changes."""

from __future__ import annotations

import sys
import time
from typing import TextIO

LINE_SECONDS = 15.0


class Progress:
    """Counts finished pieces of work on the error stream."""

    def __init__(self, label: str, total: int, *, stream: TextIO | None = None) -> None:
        self._label = label
        self._total = total
        self._stream = stream or sys.stderr
        self._on_terminal = self._stream.isatty()
        self._done = 0
        self._began = self._last = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Note that `count` more pieces are done."""
        self._done += count
        now = time.monotonic()
        finished = self._done >= self._total
        if self._on_terminal:
            self._stream.write(f"\r\x1b[K{self._line(now)}" + "\n" * finished)
            self._stream.flush()
        elif now - self._last >= LINE_SECONDS:
            self._last = now
            print(self._line(now), file=self._stream, flush=True)

    def _line(self, now: float) -> str:
        line = f"{self._label}: {self._done}/{self._total}"
        if 0 < self._done < self._total:
            line += f", {(now - self._began) * (self._total / self._done - 1):.0f} s left"
        return line
