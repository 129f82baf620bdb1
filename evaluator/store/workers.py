"""Who claims work: a process, told apart from every other process that ever had its number."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that claims shards."""

    host: str
    """Machine, boot and process-id namespace: equal only where process ids mean the same."""
    pid: int
    started: str
    """Start time of the process in clock ticks since boot: a recycled pid does not match."""
    rank: int = 0

    @classmethod
    def current(cls, rank: int = 0) -> Worker:
        """This process."""
        return cls(_machine(), os.getpid(), _start_time(os.getpid()) or "", rank)

    @property
    def name(self) -> str:
        """For people: `host:pid`."""
        return f"{self.host.split('/')[0]}:{self.pid}"

    def is_gone(self) -> bool:
        """True only when it certainly ended: same machine, and no such process any more."""
        return self.host == _machine() and _start_time(self.pid) != self.started


def _machine() -> str:
    def read(path: str) -> str:
        try:
            return Path(path).read_text().strip()
        except OSError:
            return ""

    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{read('/proc/sys/kernel/random/boot_id')}/{namespace}"


def _start_time(pid: int) -> str | None:
    """Start time of a live process, or None. A zombie counts as gone: it will not work again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
