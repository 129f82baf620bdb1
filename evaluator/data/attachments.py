"""Files that a prompt brings along: a control image, an image to start from, a mask."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from evaluator.data.raw import Place, RawPart, load_file
from evaluator.errors import InputError
from evaluator.records import is_safe_key


def attached_parts(value: Any, *, root: Path, place: Place) -> tuple[RawPart, ...]:
    """The parts for `{"init": "images/1.png"}`; files are relative to the prompt file's folder.

    Raises InputError for anything but plain names and files below `root`.
    """
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise InputError(
            f"{place}: expected 'attachments' to be an object (name → file), got {value!r};"
            ' write {"init": "images/1.png"}'
        )
    parts = []
    for name, file in sorted(value.items()):
        path = attached_file(file, root=root)
        if path is None or not is_safe_key(name) or name.startswith("_"):
            raise InputError(
                f"{place}: expected an attachment's plain name and a file with an extension"
                f" inside {root.name or root}/, got {name!r}: {file!r}; move it there or rename it"
            )
        part = f"{name}.{path.suffix[1:]}".lower()
        parts.append(RawPart(part, str(file), partial(load_file, path)))
    return tuple(parts)


def attached_file(file: Any, *, root: Path) -> Path | None:
    """Where an attachment lies; None unless it is a relative path that stays under `root`."""
    if not isinstance(file, str) or "\\" in file or "\0" in file:
        return None
    relative = PurePosixPath(file)
    if relative.is_absolute() or ".." in relative.parts or len(relative.suffix) < 2:
        return None
    return root / relative


def attached_inputs(path: Path) -> tuple[Path, ...]:
    """The files that a JSON-lines source attaches; for most there are none, and it is quick."""
    found: set[Path] = set()
    with path.open("rb") as file:
        for raw in file:
            if b'"attachments"' not in raw:
                continue
            try:
                value = json.loads(raw).get("attachments")
            except (ValueError, AttributeError, RecursionError):
                continue  # reading the prompts says what is wrong with the line
            if isinstance(value, dict):
                files = (attached_file(item, root=path.parent) for item in value.values())
                found.update(file for file in files if file is not None)
    return tuple(sorted(found))
