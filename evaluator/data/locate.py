"""Where a source lies: plain paths, files inside installed packages, sets of tars."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from evaluator.errors import InputError
from evaluator.locations import PACKAGE_SCHEME, expand

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|pipe:")
_MAX_TARS = 1_000_000


class TarSet(NamedTuple):
    """Tars that exist already, in order."""

    root: Path
    tars: tuple[str, ...]
    """Names relative to `root`."""


def expand_source(source: str, *, relative_to: Path | None = None) -> Path:
    """The path that a source stands for: a path, or `package://name/path` in a package.

    Raises InputError for other schemes (`s3://`, `https://`, and `pipe:`, which webdataset would
    give to a shell).
    """
    match = _SCHEME.match(source)
    if match and not source.startswith(PACKAGE_SCHEME):
        raise InputError(
            f"{source}: expected a path or {PACKAGE_SCHEME}…, got the scheme"
            f" {source.partition(':')[0]!r}; copy the data to a file system that is mounted"
        )
    if not source.strip() or "\0" in source:
        raise InputError(f"expected the path of a source, got {source!r}; name a file or a folder")
    return expand(source, relative_to=relative_to)


def find_tars(source: Path) -> TarSet | None:
    """The tars that a source means: one `.tar`, `a-{0000..0009}.tar`, or a folder of them.

    None if the source is something else. Raises InputError when a named tar is missing, or when
    a folder holds tars and images side by side.
    """
    if "{" in source.name and source.suffix == ".tar" and not source.exists():
        return _expand_braces(source)
    if source.suffix == ".tar" and source.is_file():
        return TarSet(source.parent, (source.name,))
    if not source.is_dir():
        return None
    tars = sorted(path.name for path in source.glob("*.tar") if not path.name.startswith("."))
    if not tars:
        return None
    others = [p.name for p in source.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg")]
    if others:
        raise InputError(
            f"{source}: expected tars or images, got both ({tars[0]}, {others[0]}); name"
            f" {source.name}/*.tar by a pattern such as a-{{0000..0009}}.tar, or move one kind"
        )
    return TarSet(source, tuple(tars))


def _expand_braces(pattern: Path) -> TarSet:
    from braceexpand import braceexpand

    try:
        names = list(islice(braceexpand(str(pattern)), _MAX_TARS + 1))
    except ValueError as error:
        raise InputError(f"{pattern}: expected balanced braces, got {error}; close them") from error
    if len(names) > _MAX_TARS:
        raise InputError(f"{pattern}: expected at most {_MAX_TARS} tars, got more; shorten it")
    missing = [name for name in names if not Path(name).is_file()]
    if missing:
        raise InputError(
            f"{pattern}: expected {len(names)} tars, got none at {missing[0]}"
            f" ({len(missing)} missing); correct the range, or copy them there"
        )
    if len(set(names)) != len(names):
        raise InputError(f"{pattern}: expected each tar once, got some twice; correct the pattern")
    root = Path(os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name in names]))
    relative = (Path(os.path.abspath(name)).relative_to(root).as_posix() for name in names)
    return TarSet(root, tuple(relative))
