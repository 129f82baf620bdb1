"""Many named files, in a folder or a zip archive, seen in one way. Nothing is extracted."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from evaluator.data.raw import MAX_MEMBER_BYTES, load_file
from evaluator.errors import InputError


class Files(Protocol):
    """Names relative to the root, `/` between folders, sorted; and the bytes of each."""

    path: Path
    names: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """The whole file; InputError when it cannot be read or is too large."""


def is_hidden(name: str) -> bool:
    """Whether a file is the system's own: dotfiles, and what macOS puts into archives."""
    folders = name.split("/")
    return any(part.startswith(".") for part in folders) or "__MACOSX" in folders


class Folder:
    """The files below a folder. Links are followed; a folder reached twice is refused."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = tuple(sorted(name for name in self._walk(path) if not is_hidden(name)))

    @staticmethod
    def _walk(root: Path) -> Iterator[str]:
        def refuse(error: OSError) -> None:
            raise InputError(
                f"{error.filename}: expected a readable folder, got {error.strerror};"
                " check its permissions"
            )

        seen: set[str] = set()
        for folder, below, files in os.walk(root, followlinks=True, onerror=refuse):
            below[:] = [name for name in below if not is_hidden(name)]
            real = os.path.realpath(folder)
            if real in seen:
                raise InputError(
                    f"{folder}: expected each folder once, got here a second time through a"
                    " link; remove the link"
                )
            seen.add(real)
            relative = os.path.relpath(folder, root)
            prefix = "" if relative == "." else f"{relative.replace(os.sep, '/')}/"
            yield from (prefix + name for name in files)

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return load_file(self.path / name)


class Zip:
    """The files of a zip archive, read in place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(
                f"{path}: expected a zip archive, got {error}; make it again, or name the folder"
            ) from error
        self._entries = {
            entry.filename: entry
            for entry in self._zip.infolist()
            if not entry.is_dir() and not is_hidden(entry.filename)
        }
        if len(self._zip.namelist()) != len(set(self._zip.namelist())):
            raise InputError(f"{path}: expected each name once, got some twice; zip it again")
        self.names = tuple(sorted(self._entries))

    def read(self, name: str) -> bytes:
        """The bytes of one file, at most `MAX_MEMBER_BYTES`, whatever the archive claims."""
        entry = self._entries[name]
        where = f"{self.path}: {name}"
        if entry.flag_bits & 0x1:
            raise InputError(f"{where}: expected a plain member, got an encrypted one; unlock it")
        try:
            with self._zip.open(entry) as file:
                data = file.read(MAX_MEMBER_BYTES + 1)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
            raise InputError(
                f"{where}: expected a readable member, got {error}; make the archive again"
            ) from error
        except Exception as error:  # zlib, bz2 and lzma each raise an error of their own
            raise InputError(f"{where}: damaged ({error}); make the archive again") from error
        if len(data) > MAX_MEMBER_BYTES:
            raise InputError(
                f"{where}: expected at most {MAX_MEMBER_BYTES} bytes, got more; remove it"
            )
        return data
