"""From what a user names, runs or folders with runs, to runs with names that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluator.durable import explained
from evaluator.errors import RunDirectoryError
from evaluator.runs.run import Run, open_run
from evaluator.store.naming import distinct_names
from evaluator.store.sweeps import is_sweep, members


def find_runs(paths: Sequence[Path]) -> dict[str, Run]:
    """Name → run, in the order named; a folder stands for the runs in it, by their folders' names.

    Of a sweep's folder only its points count: `left_out` says which others it holds. Two runs of
    one name are told apart by as much of their paths as it takes.
    """
    runs = [open_run(path) for named in paths for path in _expanded(named)]
    unique = list({run.path.resolve(): run for run in runs}.values())
    names = distinct_names([(run.name, run.path) for run in unique])
    return dict(zip(names, unique, strict=True))


def left_out(paths: Sequence[Path]) -> list[str]:
    """A line for each folder of a sweep that holds runs besides its points."""
    return [
        f"{path}: {line}"
        for path in paths
        if is_sweep(path) and not (path / "init").is_dir()
        for line in members(path).left_out
    ]


def _expanded(path: Path) -> list[Path]:
    """The run itself, or the runs in a folder; RunDirectoryError where there is neither."""
    if (path / "init").is_dir() or not path.is_dir():
        return [path]  # opening it says what is wrong
    if is_sweep(path):
        return list(members(path).points) or [path]
    with explained("list", path):
        found = sorted(inner for inner in path.iterdir() if (inner / "init").is_dir())
    if not found:
        raise RunDirectoryError(
            f"{path}: expected a run directory (made by `evaluator run`) or a folder with runs, "
            "got a folder without any. Check the path."
        )
    return found
