"""What lies at a remote address: a pack, tars, or something to be fetched and packed."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from evaluator.data.files import is_hidden
from evaluator.data.images import IMAGE_SUFFIXES
from evaluator.data.index import INDEX_NAME
from evaluator.data.locate import BESIDE_TARS, expand_braces, missing_tars, refuse_mixture
from evaluator.data.open_raw import SOURCE_SUFFIXES, matters, unsupported
from evaluator.errors import InputError
from evaluator.remote import RemotePath, Stored

_FEW = 16
"""Files that are asked for one by one; for more, their folders are listed."""


class Survey(NamedTuple):
    """What a remote source is made of."""

    kind: Literal["pack", "tars", "file", "folder"]
    source: RemotePath
    root: RemotePath
    """Folder that the names are relative to."""
    files: Mapping[str, Stored]
    """Name → what the store says of it: all that the pack depends on, in order."""

    def marks(self) -> list[str]:
        """A line for each file, which changes when the file does."""
        return [f"{name}\x1f{file.size}\x1f{file.version}" for name, file in self.files.items()]

    def require_unchanged(self, doing: str) -> None:
        """InputError if a file is not what it was when the survey was made."""
        if stored(self.root, self.files) != dict(self.files):
            raise InputError(f"{self.source}: changed while it was being {doing}; start again")


def survey(source: RemotePath) -> Survey:
    """Look at a remote source; InputError if nothing is there, or nothing of a known kind."""
    if "{" in source.name and source.suffix == ".tar":
        return _pattern(source)
    files = source.files()
    if not files:
        raise InputError(
            f"{source}: expected a file or folder, got nothing there; check the address"
        )
    if "" in files:
        return _file(source, files[""])
    if INDEX_NAME in files:
        return Survey("pack", source, source, files)
    top = [name for name in files if "/" not in name and not is_hidden(name)]
    if tars := [name for name in top if name.endswith(".tar")]:
        if images := [name for name in top if name.lower().endswith(BESIDE_TARS)]:
            raise refuse_mixture(source, tars[0], images[0])
        return Survey("tars", source, source, {name: files[name] for name in tars})
    return Survey("folder", source, source, {name: files[name] for name in _wanted(source, files)})


def stored(root: RemotePath, names: Iterable[str]) -> dict[str, Stored]:
    """What the store says now of some files below `root`; those that are gone are left out."""
    names = list(names)
    if len(names) <= _FEW:
        found = {name: (root / name).files().get("") for name in names}
        return {name: about for name, about in found.items() if about is not None}
    listed: dict[str, Stored] = {}
    for folder in _outermost(names):
        below = (root / folder if folder else root).files()
        listed |= {posixpath.join(folder, name): about for name, about in below.items()}
    return {name: listed[name] for name in names if name in listed}


def _file(source: RemotePath, about: Stored) -> Survey:
    suffix = source.suffix.lower()
    if suffix != ".tar" and suffix not in SOURCE_SUFFIXES:
        raise unsupported(source, suffix)
    kind: Literal["tars", "file"] = "tars" if suffix == ".tar" else "file"
    return Survey(kind, source, source.parent, {source.name: about})


def _pattern(source: RemotePath) -> Survey:
    """The tars of `s3://bucket/a-{0000..0009}.tar`."""
    scheme, _, inner = source.address.partition("://")
    names = expand_braces(inner)
    common = posixpath.commonpath([posixpath.dirname(name) or "." for name in names])
    if common in ("", "."):
        raise InputError(f"{source}: expected tars of one bucket, got several; name one")
    root = RemotePath(f"{scheme}://{common}")
    relative = [posixpath.relpath(name, common) for name in names]
    files = stored(root, relative)
    if missing := [name for name in relative if name not in files]:
        raise missing_tars(source.address, len(names), [str(root / name) for name in missing])
    return Survey("tars", source, root, files)


def _wanted(source: RemotePath, files: Mapping[str, Stored]) -> list[str]:
    """The files of a folder that can change its pack: a bucket may hold much else."""
    seen = [name for name in files if not is_hidden(name)]
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in seen):
        return [name for name in seen if matters(name)]
    parquet = [name for name in seen if "/" not in name and name.endswith(".parquet")]
    if not parquet:
        raise InputError(
            f"{source}: expected images ({', '.join(IMAGE_SUFFIXES)}), .tar or .parquet files, or"
            f" a pack, got {len(files)} other files, such as {next(iter(files))!r}; name the file"
            " itself, or the folder with the images"
        )
    return parquet


def _outermost(names: Iterable[str]) -> list[str]:
    """The folders of some files, without those that lie in another one of them."""
    kept: list[str] = []
    for folder in sorted({str(PurePosixPath(name).parent) for name in names}):
        folder = "" if folder == "." else folder
        if not any(not above or folder.startswith(f"{above}/") for above in kept):
            kept.append(folder)
    return kept
