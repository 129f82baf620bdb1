"""Where a configuration's `source` or `id` points: a path, a package's file, a hub id."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path, PurePosixPath

from evaluator.errors import InputError

CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")
"""`module:attr`, which names code to import."""

PACKAGE_SCHEME = "package://"
"""`package://name/path/file`: a file that an installed package brings along."""


PUSH = "name a folder, and copy finished shards with `evaluator push RUN URL`"
"""What to do instead of a run directory in a remote store."""
PULL = "copy the run here first: `evaluator pull URL RUN`"

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""An address; `Path` makes one slash of two."""


def require_mounted(path: Path | str, *, what: str, instead: str) -> None:
    """InputError if a place that files are to be written to is an address such as `s3://…`.

    Exactly-once rests on what only a file system does: a file that one of many creates
    (`O_EXCL`), a folder that appears by one rename, times by one clock.
    """
    if _ADDRESS.match(str(path)):
        scheme = str(path).partition(":")[0]
        raise InputError(
            f"{what}: expected a folder on a POSIX file system, got an address ({scheme}://…):"
            " workers share it by renames, links and exclusive creation, which a store of objects"
            f" does not have; {instead}"
        )


def cache_folder(configured: str | None = None) -> Path:
    """Where packs, references and fetched weights are kept.

    What a configuration says, else $EVALUATOR_CACHE, else the user's cache folder.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    chosen = configured or os.environ.get("EVALUATOR_CACHE") or f"{base}/diffusion-evaluator"
    require_mounted(chosen, what="the cache", instead="name a folder in runtime.cache")
    return Path(chosen).expanduser()


def expand(location: str, *, relative_to: Path | None = None) -> Path:
    """The path that `location` stands for; it need not exist.

    A relative path is taken from `relative_to` (the folder of the configuration file) when it
    exists there, else from the current folder. Raises InputError when the package is not there.
    """
    if location.startswith(PACKAGE_SCHEME):
        return _inside_package(location)
    path = Path(location).expanduser()
    if relative_to is not None and not path.is_absolute() and (relative_to / path).exists():
        return relative_to / path
    return path


def _inside_package(location: str) -> Path:
    package, _, inner = location.removeprefix(PACKAGE_SCHEME).partition("/")
    if ".." in PurePosixPath(inner).parts or not package.isidentifier() or not inner:
        raise InputError(
            f"{location}: expected package://name/path without '..', such as "
            "package://evaluator/demo/data/test.parquet."
        )
    # A top-level name is looked up without importing it: nothing of the package runs.
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{location}: expected an installed package '{package}', got none.")
    return Path(next(iter(spec.submodule_search_locations))) / inner
