"""Where a source lies: paths, files inside installed packages, remote stores, sets of tars."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from evaluator.errors import InputError
from evaluator.locations import PACKAGE_SCHEME, expand
from evaluator.remote import RemotePath

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|pipe:")
_MAX_TARS = 1_000_000
BESIDE_TARS = (".png", ".jpg", ".jpeg")
"""Images that a folder of tars may not hold: it would be unclear what is meant."""


class TarSet(NamedTuple):
    """Tars that exist already, in order."""

    root: Path
    tars: tuple[str, ...]
    """Names relative to `root`."""


def expand_source(source: str, *, relative_to: Path | None = None) -> Path | RemotePath:
    """What a source stands for: a path, `package://name/path` in a package, a remote address.

    Raises InputError for other schemes (`https://`, and `pipe:`, which webdataset would give to
    a shell).
    """
    if (remote := RemotePath.parse(source)) is not None:
        return remote
    match = _SCHEME.match(source)
    if match and not source.startswith(PACKAGE_SCHEME):
        scheme = source.partition(":")[0]
        raise InputError(
            f"{scheme}:…: expected a path, {PACKAGE_SCHEME}…, s3://…, gs://… or hf://…, got the"
            f" scheme {scheme!r}; copy the data to a file system that is mounted"
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
    others = [p.name for p in source.iterdir() if p.suffix.lower() in BESIDE_TARS]
    if others:
        raise refuse_mixture(source, tars[0], others[0])
    return TarSet(source, tuple(tars))


def _expand_braces(pattern: Path) -> TarSet:
    names = expand_braces(str(pattern))
    missing = [name for name in names if not Path(name).is_file()]
    if missing:
        raise missing_tars(str(pattern), len(names), missing)
    root = Path(os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name in names]))
    relative = (Path(os.path.abspath(name)).relative_to(root).as_posix() for name in names)
    return TarSet(root, tuple(relative))


def expand_braces(pattern: str) -> list[str]:
    """The distinct names that `a-{0000..0009}.tar` stands for, in order."""
    from braceexpand import braceexpand

    try:
        names = list(islice(braceexpand(pattern), _MAX_TARS + 1))
    except ValueError as error:
        raise InputError(f"{pattern}: expected balanced braces, got {error}; close them") from error
    if len(names) > _MAX_TARS:
        raise InputError(f"{pattern}: expected at most {_MAX_TARS} tars, got more; shorten it")
    if len(set(names)) != len(names):
        raise InputError(f"{pattern}: expected each tar once, got some twice; correct the pattern")
    return names


def missing_tars(pattern: str, count: int, missing: Sequence[str]) -> InputError:
    """The error for a pattern that stands for tars which are not there."""
    return InputError(
        f"{pattern}: expected {count} tars, got none at {missing[0]} ({len(missing)} missing);"
        " correct the range, or copy them there"
    )


def refuse_mixture(source: Path | RemotePath, tar: str, image: str) -> InputError:
    """The error for a folder that holds tars and images side by side."""
    return InputError(
        f"{source}: expected tars or images, got both ({tar}, {image}); name"
        f" {source.name}/*.tar by a pattern such as a-{{0000..0009}}.tar, or move one kind"
    )
