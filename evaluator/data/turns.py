"""Taking turns: many processes may want the same thing made in the cache at the same time."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from evaluator.errors import StorageError


@contextmanager
def one_at_a_time(cache: Path, name: str) -> Iterator[bool]:
    """Hold a lock that dies with the process; gives whether there are locks here at all.

    It saves work only: renames decide who was first.
    """
    path = cache / "locks" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise StorageError(
            f"{cache}: expected a writable cache, got {error.strerror}; name another place"
        ) from error
    with file:
        held = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # some network file systems have no locks
            held = False
        yield held


def digest(parts: Sequence[str]) -> str:
    """SHA-256 of some texts in order, hexadecimal."""
    return hashlib.sha256("\x1e".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
