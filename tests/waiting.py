"""Waiting in tests: always for something that is named, and never for ever.

A fixed sleep asks that the machine be quick, and a join with a deadline that nobody looks at lets
a hang pass for success. `PATIENCE` is many times what a busy machine needs: nothing waits so long
unless something is broken, and then it says what.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

PATIENCE = 300.0
"""Seconds after which what has not come will not come."""


def until(what: str, holds: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Wait until something holds; AssertionError naming it where it does not come to that."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"expected within {seconds:.0f} s that {what}"
        time.sleep(0.01)


class Beside(threading.Thread):
    """A function in a thread that keeps no process alive; remembers what it raised."""

    def __init__(self, target: Callable[[], object]) -> None:
        super().__init__(daemon=True, name=getattr(target, "__name__", "a test's thread"))
        self.target, self.error = target, None

    error: BaseException | None

    def run(self) -> None:
        try:
            self.target()
        except BaseException as error:
            self.error = error

    def finish(self, seconds: float = PATIENCE) -> None:
        """Wait for its end, and raise what it raised; AssertionError with its stack if it hangs."""
        self.join(seconds)
        if self.is_alive():
            frame = sys._current_frames().get(self.ident or 0)
            stack = "".join(traceback.format_stack(frame))
            raise AssertionError(f"{self.name} did not end within {seconds:.0f} s:\n{stack}")
        if self.error is not None:
            raise self.error


@contextmanager
def beside(*targets: Callable[[], object]) -> Iterator[list[Beside]]:
    """Functions that run beside the block, which ends when they have; what they raise is raised."""
    threads = [Beside(target) for target in targets]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.join(PATIENCE)
    for thread in threads:
        thread.finish(0)


@contextmanager
def running(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """Processes that are started with the block, and none of which outlives it.

    AssertionError if one has not ended, or not with 0, when the block has.
    """
    for process in processes:
        process.start()
    try:
        yield
        deadline = time.monotonic() + PATIENCE
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
        ends = [process.exitcode for process in processes]
        assert ends == [0] * len(processes), f"expected all to end with 0, got {ends}"
    finally:
        for process in processes:
            process.kill()
            process.join()
