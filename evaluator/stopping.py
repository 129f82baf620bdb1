"""Signals that ask a process to stop: work may go on for a grace period, then it is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from evaluator.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What schedulers, launchers and people send."""

MARGIN = 1.25
"""Work whose time is only estimated must fit into the grace period with so much to spare."""

_ECHO_SECONDS = 0.5
"""A launcher hands an interrupt on that its workers had from the terminal already."""


class _Expired(BaseException):
    """The grace period is over. No `except Exception` of a library may hold it."""


class StopRequest:
    """Whether a signal asked this process to stop, and how long it may go on.

    Work looks at it between batches. What is in mid-batch when the grace period ends is broken
    off, but only inside `interruptible`: never while something is written.
    """

    def __init__(self, grace_seconds: float = 0.0) -> None:
        self.signal: int | None = None
        self.grace_seconds = grace_seconds
        self._asked_at = 0.0
        self._depth = 0

    def __bool__(self) -> bool:
        return self.signal is not None

    def raise_if_set(self) -> None:
        """Raise Preempted when a signal came."""
        if self.signal is not None:
            raise self._preempted()

    def raise_unless_time_for(self, seconds: float) -> None:
        """Raise Preempted when a signal came and what is left takes longer than the grace does."""
        if self.signal is not None and MARGIN * seconds > self._seconds_left():
            raise self._preempted()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work that is broken off, as Preempted, when the grace period ends."""
        if self.signal is not None and self._seconds_left() <= 0:
            raise self._preempted()
        self._depth += 1
        try:
            yield
        except _Expired:
            raise self._preempted() from None
        finally:
            self._depth -= 1

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler; a second interrupt ends the process at once."""
        if self.signal is None:
            self.signal, self._asked_at = number, time.monotonic()
            # Again and again: what is broken off may be between two interruptible parts.
            signal.setitimer(signal.ITIMER_REAL, max(self.grace_seconds, 0.1), 1.0)
            self._say("stopping as soon as what is in hand is kept; Ctrl-C again leaves at once")
        elif number == signal.SIGINT and time.monotonic() - self._asked_at > _ECHO_SECONDS:
            self._say("interrupted again: leaving at once; everything committed is kept")
            os._exit(Preempted.exit_status)

    def expire(self, number: int, frame: FrameType | None) -> None:
        """Handler of the timer: the grace period is over."""
        if self._depth:
            raise _Expired

    def _seconds_left(self) -> float:
        return self.grace_seconds - (time.monotonic() - self._asked_at)

    def _say(self, message: str) -> None:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            with suppress(OSError):  # who listened may be gone: the terminal, or the launcher
                # Not print: a handler must not meet a buffer that is being written.
                os.write(2, f"\n{message}\n".encode())

    def _preempted(self) -> Preempted:
        assert self.signal is not None
        return Preempted(
            f"told to stop by {signal.Signals(self.signal).name}; everything committed is "
            "kept. Run the same command again to continue."
        )


@contextmanager
def stop_on_signals(grace_seconds: float) -> Iterator[StopRequest]:
    """Turn SIGTERM, SIGINT and SIGUSR1 into a request to stop, for the length of the block."""
    request = StopRequest(grace_seconds)
    before = {number: signal.signal(number, request.handle) for number in SIGNALS}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, request.expire)
    try:
        yield request
    except _Expired:  # it came while an interruptible part was being left
        raise request._preempted() from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
