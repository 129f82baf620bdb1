"""Published weights files: fetched once a machine, known by their hash before anyone reads them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from evaluator.durable import explained, flush_to_disk, sha256_file
from evaluator.errors import InputError

_TIMEOUT_SECONDS = 60
_CHUNK = 1 << 20
_TRUTHS = {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file that its authors published, and what it must be."""

    name: str
    url: str
    sha256: str
    max_bytes: int
    """More than this is not read: a wrong server must not fill the disk."""


class _NetworkError(Exception):
    """The server was not reached, or broke off."""


def fetch_published(file: PublishedFile, folder: Path) -> Path:
    """The file in `folder`, fetched when it is not there or not what it should be.

    The first process of a machine fetches, the others wait for it. A part is never seen under
    the final name, and a process that dies leaves nothing that stops the next. Raises InputError
    when there is no network or the content is another, saying how to bring the file by hand.
    """
    final = folder / file.name
    with explained("fetch weights to", final):
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder / f".{file.name}.lock") as alone:
            if not (final.is_file() and sha256_file(final) == file.sha256):
                if alone:
                    _sweep(final)
                _fetch(file, final)
    return final


@contextmanager
def _turn(lock: Path) -> Iterator[bool]:
    """Wait for this process's turn; whether it is alone then. The system frees a dead one's."""
    with lock.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError:
            # Some network file systems have no locks: then several may fetch, and one rename wins.
            yield False
            return
        yield True


def _sweep(final: Path) -> None:
    """Remove the parts of fetches that were killed."""
    for part in final.parent.glob(f".{final.name}.*.part"):
        part.unlink(missing_ok=True)


def _fetch(file: PublishedFile, final: Path) -> None:
    by_hand = (
        f"Fetch {file.url} on a machine with a network, and copy it to {final}, or name it with "
        "`id` in the configuration (of `score` by --weights)."
    )
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUTHS:
        raise InputError(
            f"{file.name}: expected the published weights at {final}, got none there, and "
            f"HF_HUB_OFFLINE forbids fetching them. {by_hand}"
        )
    part = final.with_name(f".{final.name}.{uuid.uuid4().hex}.part")
    try:
        got = _download(file, part)
        if got != file.sha256:
            raise InputError(
                f"{file.name}: expected a file with SHA-256 {file.sha256}, got {got} "
                f"({part.stat().st_size} bytes) from {file.url}; it was thrown away. {by_hand}"
            )
        flush_to_disk(part)
        os.replace(part, final)
        flush_to_disk(final.parent)
    except _NetworkError as error:
        raise InputError(
            f"{file.name}: expected the published weights at {final}, or a network to fetch them; "
            f"got neither ({error}). {by_hand}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _download(file: PublishedFile, part: Path) -> str:
    """Write the content to `part`; returns its SHA-256."""
    digest = hashlib.sha256()
    with part.open("wb") as output:
        for chunk in _chunks(file):
            digest.update(chunk)
            output.write(chunk)
    return digest.hexdigest()


def _chunks(file: PublishedFile) -> Iterator[bytes]:
    """The content piece by piece, one byte more than `max_bytes` at the most."""
    try:
        # The address is ours, and what comes is judged by its hash.
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            left = file.max_bytes + 1
            while left > 0 and (chunk := answer.read(min(left, _CHUNK))):
                left -= len(chunk)
                yield chunk
    except (OSError, HTTPException) as error:
        raise _NetworkError(str(error)) from error
