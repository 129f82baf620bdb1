"""The folder of a sweep: `sweep.json` says its points, beside a run directory for each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evaluator.config.points import Sweep
from evaluator.durable import explained_in_run, write_atomically
from evaluator.errors import RunDirectoryError

FILE = "sweep.json"
FORMAT = 1
"""Version of sweep.json."""


@dataclass(frozen=True, slots=True)
class KnownPoint:
    """A point as sweep.json has it."""

    folder: str
    name: str
    """Of its run."""
    values: Mapping[str, Any]

    @property
    def label(self) -> str:
        """`generation.guidance_scale=3, generation.steps=20`."""
        return ", ".join(
            f"{path}={value if isinstance(value, str) else json.dumps(value)}"
            for path, value in self.values.items()
        )


class Members(NamedTuple):
    """The run directories in a sweep's folder."""

    points: tuple[Path, ...]
    """Of the points that were begun, in the order of their names."""
    others: tuple[str, ...]
    """Names of those that are no point's: the sweep was changed, or they were put there."""

    @property
    def left_out(self) -> list[str]:
        """One line about those that do not count; none where all do."""
        if not self.others:
            return []
        more = f" and {len(self.others) - 5} more" if len(self.others) > 5 else ""
        names = ", ".join(self.others[:5]) + more
        return [
            f"left out, as {FILE} does not name {'it' if len(self.others) == 1 else 'them'} (any "
            f"longer): {names}"
        ]


def is_sweep(path: Path) -> bool:
    """Whether a folder is a sweep's."""
    return (path / FILE).is_file()


def write_points(sweep: Sweep, path: Path) -> None:
    """Say which points there are, as they were asked for last."""
    record = {
        "format": FORMAT,
        "name": sweep.name,
        "paths": list(sweep.paths),
        "points": [
            {"folder": point.suffix, "name": point.config.name, "values": dict(point.values)}
            for point in sweep.points
        ],
    }
    content = f"{json.dumps(record, indent=1, ensure_ascii=False, default=str)}\n".encode()
    with explained_in_run("create", path):
        path.mkdir(parents=True, exist_ok=True)
        if is_sweep(path) and (path / FILE).read_bytes() == content:
            return
    write_atomically(path / FILE, content, in_run=True)


def read_points(path: Path) -> tuple[str, list[KnownPoint]]:
    """Name and points of the sweep in a folder; raises RunDirectoryError where it is none.

    A folder that is named there must lie in the sweep's: the file may come from elsewhere.
    """
    try:
        record = json.loads((path / FILE).read_bytes())
        name = str(record["name"])
        points = [
            KnownPoint(str(point["folder"]), str(point["name"]), dict(point["values"]))
            for point in record["points"]
        ]
    except FileNotFoundError as error:
        raise RunDirectoryError(
            f"{path}: expected the folder of a sweep (with {FILE}, made by `evaluator run`), got "
            "none. Check the path, or start the sweep."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunDirectoryError(
            f"{path / FILE}: expected the points of a sweep, got: {type(error).__name__}: {error}. "
            "The same `evaluator run` command writes it again."
        ) from error
    for point in points:
        if Path(point.folder).name != point.folder or point.folder in ("", ".", ".."):
            raise RunDirectoryError(
                f"{path / FILE}: expected folders inside the sweep's, got {point.folder!r}. "
                "The same `evaluator run` command writes it again."
            )
    return name, points


def members(folder: Path) -> Members:
    """Which run directories of a sweep's folder are its points; RunDirectoryError as above."""
    named = {point.folder for point in read_points(folder)[1]}
    with explained_in_run("list", folder):
        runs = sorted(path for path in folder.iterdir() if (path / "init").is_dir())
    return Members(
        tuple(path for path in runs if path.name in named),
        tuple(path.name for path in runs if path.name not in named),
    )
