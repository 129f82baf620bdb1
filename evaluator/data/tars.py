"""Walking a tar: every member with its place and hash, or the fault that would lose samples."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from evaluator.errors import EvaluatorError
from evaluator.remote import RemotePath

_CHUNK = 1 << 20
_BLOCK = 512

_META = re.compile(r"__[^/]*__\Z")
"""`__meta__`, by webdataset's convention no sample."""
_IN_META_FOLDER = re.compile(r"__[^/]*__/")
"""webdataset skips what lies there too, samples or not."""
_VOLUME_LABEL = b"V"
_MOST_ZEROS = 1 << 20
"""Writers pad the end to a record: 10 KiB usually, never so much."""
_OTHER_KINDS = {
    b"\x1f\x8b": "a gzipped one; gunzip it first",
    b"BZh": "a bzip2ed one; bunzip2 it first",
    b"\xfd7zXZ\0": "one packed by xz; unxz it first",
    b"\x28\xb5\x2f\xfd": "one packed by zstd; unzstd it first",
    b"PK\x03\x04": "a zip archive; call it .zip",
}


class BrokenTarError(Exception):
    """What is wrong with a tar; says nothing of whose fault it is, which the caller knows."""


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str
    offset: int
    """Of its first byte of data."""
    size: int
    sha256: str


class MemberName(NamedTuple):
    """A member's name as webdataset splits it."""

    base: str
    """Folders and the stem up to the first dot: the sample's key."""
    part: str
    """All extensions, in lower case: the name of the part."""


def split_name(name: str) -> MemberName:
    """Split at the first dot of the last component; BrokenTarError if there is no extension."""
    folder, slash, last = name.rpartition("/")
    stem, _, part = last.partition(".")
    if part.startswith("__") or _IN_META_FOLDER.match(name):
        raise BrokenTarError(
            f"expected members named key.extension, got {name!r}, which webdataset takes for a note"
            " to itself because of the '__'; remove or rename it"
        )
    if not stem or not part:
        raise BrokenTarError(
            f"expected members named key.extension, got {name!r}, which webdataset would skip"
            " or misread (macOS leaves such files: set COPYFILE_DISABLE=1); remove or rename it"
        )
    return MemberName(f"{folder}{slash}{stem}", part.lower())


def walk_tar(path: Path | RemotePath) -> Iterator[Member]:
    """Each regular member in order, hashed while reading. Nothing is extracted.

    Raises BrokenTarError where webdataset and tar would stop early without a word: a tar cut inside
    a member or between two, or filled up with zeros instead, a damaged header, two tars one after
    the other; and for links, devices and compressed tars.
    """
    opened: Any = path.open("rb")
    with opened as file:
        start = file.read(6)
        for magic, kind in _OTHER_KINDS.items():
            if start.startswith(magic):
                raise BrokenTarError(f"expected a plain tar, got {kind}")
        total = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            tar = tarfile.TarFile(fileobj=file, errors="surrogateescape")
        except tarfile.TarError as error:
            raise BrokenTarError(f"expected a tar, got {error}; copy or write it again") from error
        end = 0
        while (info := _next(tar)) is not None:
            # Otherwise tarfile remembers every member it has passed.
            tar.members.clear()  # type: ignore[attr-defined]
            end = tar.offset
            if not 0 <= info.size <= total:  # the next member might begin before this one
                raise BrokenTarError(
                    f"expected {info.size} bytes in {info.name!r}, got {total} in the whole file:"
                    " cut short, or a damaged header; copy or write it again"
                )
            if info.isdir() or info.type == _VOLUME_LABEL or _META.match(info.name):
                continue
            if not info.isreg() or info.issparse():
                raise BrokenTarError(
                    f"expected regular files only, got the link or device {info.name!r};"
                    " pack the file itself (tar --dereference)"
                )
            yield Member(info.name, info.offset_data, info.size, _sha256_at(file, info))
        _require_end(file, end)


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return tar.next()
    except EvaluatorError:
        raise  # a remote store's; some are ValueErrors
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise BrokenTarError(f"cut short or damaged ({error}); copy or write it again") from error


def _sha256_at(file: IO[bytes], info: tarfile.TarInfo) -> str:
    digest, left = hashlib.sha256(), info.size
    file.seek(info.offset_data)
    while left:
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            raise BrokenTarError(
                f"cut short: expected {info.size} bytes in {info.name!r}, got"
                f" {info.size - left}; copy or write it again"
            )
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def _require_end(file: IO[bytes], end: int) -> None:
    """BrokenTarError unless nothing but zeros, and at least one block of them, follows `end`."""
    file.seek(end)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise BrokenTarError(
            "cut short: expected blocks of zeros at the end of the archive, got the end of the"
            " file, so members may be missing; copy or write it again"
        )
    zeros = 0
    while block:
        zeros += len(block)
        if zeros > _MOST_ZEROS:
            raise BrokenTarError(
                f"expected the end of the archive at byte {end}, got more than {_MOST_ZEROS} zeros"
                " there, as a download that stopped leaves them; copy or write it again"
            )
        if block.strip(b"\0"):
            raise BrokenTarError(
                f"expected nothing after the end of the archive (byte {end}), got more data: a"
                " damaged header, or tars put together by cat; write it again"
            )
        block = file.read(_CHUNK)
