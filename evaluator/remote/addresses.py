"""An address in a remote store, used as a path is: listed, read by ranges, fetched, put."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from evaluator.errors import InputError, StorageError
from evaluator.remote.faults import SCHEMES, explained

BLOCK = 4 * 1024 * 1024
"""Bytes asked for at once when a file is read by ranges."""
_BLOCKS_KEPT = 16

_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)})://(?P<inner>.*)\Z", re.DOTALL)
_VERSIONS = ("ETag", "etag", "generation", "blob_id", "xet_hash", "mtime", "created", "updated",
             "LastModified")  # fmt: skip


class Stored(NamedTuple):
    """What a store says of one file."""

    size: int
    """In bytes."""
    version: str
    """Changes when the content does: an ETag, a generation, a blob's hash, a time."""
    md5: str | None = None
    """Of the content, hexadecimal, where the store tells (most of S3 does: see `fetch`)."""
    certain: bool = False
    """Whether `md5` is one for sure. An ETag of S3 is none under some kinds of encryption."""


@dataclass(frozen=True, slots=True)
class RemotePath:
    """`s3://bucket/folder/file`. Holds nothing but the address, so it may be pickled."""

    address: str

    @classmethod
    def parse(cls, text: str) -> RemotePath | None:
        """The address that `text` is, or None if it is no remote one.

        Raises InputError, without repeating it, for one that holds credentials; and for one that
        names no bucket, or several stores at once.
        """
        match = _ADDRESS.match(text)
        if match is None:
            return None
        scheme, inner = match[1], match["inner"].rstrip("/")
        first = inner.partition("/")[0]
        if "?" in inner or ("@" in first and scheme != "hf") or (":" in first):
            raise InputError(
                f"{scheme}://…: expected an address without credentials or a query, got one with;"
                f" leave them out: they are taken from the environment"
                f" ({SCHEMES[scheme].credentials})"
            )
        odd = "::" in inner or "\0" in inner or "\\" in inner or "*" in inner
        if not first or odd or {".", "..", ""} & set(inner.split("/")):
            raise InputError(
                f"{text}: expected {scheme}://bucket/path, got an address without a bucket, or"
                " with '*', '..', '//', '::' or a backslash in it; name one file or folder"
            )
        return cls(f"{scheme}://{inner}")

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.address}/{name}")

    @property
    def name(self) -> str:
        """The last component."""
        return self.address.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The last component's extension, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePath:
        """The folder it lies in; a bucket is its own."""
        above = self.address.rpartition("/")[0]
        return self if above.endswith("/") else RemotePath(above)

    def files(self) -> dict[str, Stored]:
        """Relative name → every file below, asked for anew; `""` if the address is a file itself.

        Empty where there is nothing. Raises InputError for names that could leave a folder.
        """
        _block.cache_clear()
        _size.cache_clear()
        with explained("list", self.address):
            store, path = self._store()
            store.invalidate_cache()
            if hasattr(store, "resolve_path"):  # the hub's own spelling of a repository
                path = store.resolve_path(path).unresolve()
            found: Mapping[str, Mapping[str, Any]] = store.find(path, detail=True)
            listed = {
                name.removeprefix(path).lstrip("/") if name != path else "": _stored(about)
                for name, about in found.items()
                # Consoles make folders as empty objects with such names.
                if about.get("type") == "file" and not name.endswith("/")
            }
        for name in listed:
            if {"..", "."} & set(name.split("/")) or "//" in name or "\0" in name or "\\" in name:
                raise InputError(
                    f"{self}: expected plain names, got {name!r}, which could leave its folder;"
                    " rename it"
                )
        return dict(sorted(listed.items()))

    def stat(self) -> Stored:
        """Size and version, asked for anew; InputError where there is no file."""
        with explained("read", self.address):
            store, path = self._store()
            store.invalidate_cache()
            about = store.info(path)
            if about.get("type") != "file":
                raise FileNotFoundError(path)
            return _stored(about)

    def is_file(self) -> bool:
        """Whether there is a file."""
        return "" in self.files()

    def exists(self) -> bool:
        """Whether there is a file, or a folder with any."""
        return bool(self.files())

    def open(self, mode: str = "rb") -> io.RawIOBase:
        """The file, read by ranges as it is asked for; nothing is downloaded ahead."""
        assert mode == "rb", mode
        return _Ranges(self)

    def read_bytes(self) -> bytes:
        """The whole file."""
        with explained("read", self.address):
            store, path = self._store()
            data: bytes = store.cat_file(path)
            return data

    def fetch(self, to: Path) -> None:
        """Download the file to `to`, which must be new."""
        with explained("fetch", self.address):
            store, path = self._store()
            if self.address.startswith("memory:"):
                # Its open files are one and the same: two readers would move each other's place.
                to.write_bytes(store.cat_file(path))
            else:
                store.get_file(path, str(to))

    def put(self, file: Path) -> None:
        """Upload `file`; it appears as a whole, or not at all."""
        with explained("write", self.address):
            store, path = self._store()
            if self.address.startswith("memory:"):
                # Its upload shows an empty file first, and fills it while others list it.
                store.pipe_file(path, file.read_bytes())
            else:
                store.put_file(str(file), path)

    def write_bytes(self, content: bytes) -> None:
        """Replace the file by `content`; it appears as a whole, or not at all."""
        with explained("write", self.address):
            store, path = self._store()
            store.pipe_file(path, content)

    def _store(self) -> tuple[Any, str]:
        """The store's client, shared by all addresses of its kind, and its name for this one."""
        store = _client(self.address.partition("://")[0], os.getpid())
        # Not fsspec.open: that would follow `::` into other stores.
        return store, store._strip_protocol(self.address)


@lru_cache
def _client(scheme: str, pid: int) -> Any:
    """The file system that fsspec has for a scheme. One for all threads; none outlives a fork."""
    import fsspec

    return fsspec.filesystem(scheme)


def _stored(about: Mapping[str, Any]) -> Stored:
    """What a listing says of a file, whichever store it is."""
    size = int(about.get("size") or 0)
    version = next((str(about[name]) for name in _VERSIONS if about.get(name)), "")
    tag = str(about.get("ETag") or "").strip('"')
    if about.get("md5Hash"):  # Google's: base64
        import base64

        return Stored(size, version, base64.b64decode(about["md5Hash"]).hex(), certain=True)
    return Stored(size, version, tag if re.fullmatch(r"[0-9a-f]{32}", tag) else None)


@lru_cache(maxsize=_BLOCKS_KEPT)
def _block(address: str, number: int, size: int) -> bytes:
    """One block of a file. Neighbouring members of a tar come out of one request."""
    with explained("read", address):
        store, path = RemotePath(address)._store()
        start, stop = number * BLOCK, min((number + 1) * BLOCK, size)
        data: bytes = store.cat_file(path, start=start, end=stop)
    if len(data) != stop - start:
        raise StorageError(
            f"{address}: expected {stop - start} bytes at {start}, got {len(data)}; it changed, or"
            " the connection broke: run the same command again"
        )
    return data


@lru_cache(maxsize=65536)
def _size(address: str) -> int:
    return RemotePath(address).stat().size


class _Ranges(io.RawIOBase):
    """A remote file for reading: whole blocks are asked for, and the last few are kept."""

    def __init__(self, path: RemotePath) -> None:
        self._address = path.address
        self._size = _size(path.address)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, or all of it that the file reaches to."""
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and self._at < self._size:
            number, skipped = divmod(self._at, BLOCK)
            data = _block(self._address, number, self._size)
            piece = data[skipped : skipped + len(view) - filled]
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._at += len(piece)
        return filled
