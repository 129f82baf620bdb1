"""Durable file operations: write aside, flush to disk, then appear under the final name."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from evaluator.errors import StorageError

_REMEDIES = {
    errno.ENOSPC: "free some space (or choose another --output), then run the same command again",
    errno.EDQUOT: "the quota is used up; free some space, then run the same command again",
    errno.EROFS: "the file system is read-only; choose another --output",
    errno.EACCES: "check the permissions of the directory, or choose another --output",
    errno.EPERM: "check the permissions of the directory, or choose another --output",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOENT: "it or the directory vanished; check that the file system is still mounted, and "
    "that a copy is whole",
    errno.ESTALE: "the network file system was remounted; run the same command again",
    errno.EIO: "the disk failed to read or write; check it, then run the same command again",
}
"""For a run."""

_ELSEWHERE = {
    errno.ENOSPC: "free some space, or name another place",
    errno.EROFS: "the file system is read-only; name another place",
    errno.EACCES: "check the permissions, or name another place",
    errno.EPERM: "check the permissions, or name another place",
    errno.ENOENT: "check the path: the folder is not there",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "name a file: there is a folder of that name",
}
"""For what lies outside of runs, where it differs."""


@contextmanager
def explained(doing: str, path: Path, *, in_run: bool = False) -> Iterator[None]:
    """Turn an OSError into a StorageError that says what was being done, where, and the remedy.

    `in_run` adds what whoever leaves a run alone for a week wants to know.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        number = error.errno or 0
        remedy = _REMEDIES.get(number, "run the same command again once it is mended")
        if in_run:
            remedy = f"everything committed so far is kept; {remedy}"
        else:
            remedy = _ELSEWHERE.get(number, remedy)
        raise StorageError(
            f"could not {doing} {path}: {error.strerror or error}. {remedy[0].upper()}{remedy[1:]}."
        ) from error


def explained_in_run(doing: str, path: Path) -> AbstractContextManager[None]:
    """`explained`, of a part of a run directory."""
    return explained(doing, path, in_run=True)


def flush_to_disk(path: Path) -> None:
    """Fsync a file or a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes, *, in_run: bool = False) -> None:
    """Replace `path` by `content`: a reader sees the old file or the new one, never a part."""
    with replacing(path, in_run=in_run) as aside:
        aside.write_bytes(content)


@contextmanager
def replacing(path: Path, *, in_run: bool = False) -> Iterator[Path]:
    """A place to write the file that then takes the place of `path`, whole and flushed to disk.

    A link at `path` is replaced, not followed. Where the writing fails, the old file stays.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.aside")
    with explained("write", path, in_run=in_run):
        try:
            yield aside
            flush_to_disk(aside)
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def publish_directory(staged: Path, final: Path) -> bool:
    """Rename a filled directory to its final name; first writer wins.

    Returns whether this call won. The loser's directory is removed. All files are flushed first,
    so that a directory which exists under its final name is complete even after a power cut.
    """
    with explained("commit", final, in_run=True):
        for file in staged.iterdir():
            flush_to_disk(file)
        flush_to_disk(staged)
        try:
            os.rename(staged, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(staged, ignore_errors=True)
            return False
        flush_to_disk(final.parent)
    return True


def publish_file(aside: Path, final: Path) -> bool:
    """Link a filled file to its final name; first writer wins. Returns whether this call won."""
    with explained("commit", final, in_run=True):
        flush_to_disk(aside)
        try:
            os.link(aside, final)
        except FileExistsError:
            return False
        finally:
            aside.unlink(missing_ok=True)
        flush_to_disk(final.parent)
    return True
