"""Files of an export, and which of those that are there already are its own to replace.

A record beside them says what was written, and of which run. What it does not hold, what was
changed since, and the file of another run is not replaced unasked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from evaluator.durable import explained, sha256_file, write_atomically
from evaluator.errors import ConfigError
from evaluator.text import plain

RECORD = ".evaluator-export.json"
"""Name within the folder → SHA-256 of what was written there last.

And of what it `replaces`, while an export is going on: one that is interrupted leaves some of each.
`runs` says of which run a file is, where a file is of one.
"""

FORMAT = 1
"""Version of the record."""


MEND = (
    "Export both at once, which tells them apart, name another folder by --output, or replace it: "
    "--overwrite."
)
"""What to do where another run of this name was exported before."""


def write_files(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    runs: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write files (name within the folder → content); those of an older export are replaced.

    `runs` (name → identity) says of which run a file is. Raises ConfigError before anything is
    written where a file is another's, or another run's, unless `overwrite`.
    """
    digests = {name: sha256(content).hexdigest() for name, content in files.items()}
    written, there = _recorded(folder, "written"), {}
    owners = _recorded(folder, "runs")
    if not overwrite:
        there = {name: found for name in files if (found := _digest(folder / name)) is not None}
        _require_own(folder, digests, there, written)
        for name, identity in (runs or {}).items():
            if there.get(name) not in (None, digests[name]):
                _require_same_run(folder / name, identity, owners.get(name))
    with explained("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    written |= digests
    owners |= runs or {}
    known = {"runs": owners} if owners else {}
    _record(folder, **known, written=written, replaces=there)
    for name, content in files.items():
        path = folder / name
        with explained("create", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    _record(folder, **known, written=written)
    return [folder / name for name in files]


def _require_own(
    folder: Path, digests: Mapping[str, str], there: Mapping[str, str], written: Mapping[str, str]
) -> None:
    """Raise ConfigError where a file is there that no export wrote, or that was changed since."""
    replaced = _recorded(folder, "replaces")
    others = [
        name
        for name, found in there.items()
        if found not in (digests[name], written.get(name), replaced.get(name))
    ]
    if others:
        changed = others[0] in written
        got = "one that was changed since" if changed else "one that no export wrote"
        more = f" (and {len(others) - 1} more such files)" if len(others) > 1 else ""
        raise ConfigError(
            f"{plain(folder / others[0])}: expected no file, or one as an earlier export left it, "
            f"got {got}{more}. Name another folder by --output, or replace it: --overwrite."
        )


def _require_same_run(path: Path, identity: str, there: str | None) -> None:
    """Raise ConfigError where the file is of another run; older records do not say of which."""
    if there not in (None, identity):
        raise ConfigError(
            f"{plain(path)}: expected no file, or one of the run that is exported, got one of "
            f"another run of this name. {MEND}"
        )


def _digest(path: Path) -> str | None:
    """Of the file there, None where nothing is; what no file has, where a link or a folder is."""
    if path.is_symlink() or path.is_dir():
        return ""
    with explained("read", path):
        return sha256_file(path) if path.exists() else None


def _record(folder: Path, **parts: Mapping[str, str]) -> None:
    record = {"format": FORMAT, **{part: dict(sorted(of.items())) for part, of in parts.items()}}
    write_atomically(folder / RECORD, (json.dumps(record, indent=1) + "\n").encode())


def _recorded(folder: Path, part: str) -> dict[str, str]:
    """A part of the record; empty where none can be read: then nothing there is ours."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        return {str(name): str(digest) for name, digest in record[part].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
