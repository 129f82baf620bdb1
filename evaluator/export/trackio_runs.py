"""trackio, local: a folder with a database and media, shown by `trackio show` with TRACKIO_DIR."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from evaluator.errors import ConfigError
from evaluator.export.extras import require_installed
from evaluator.export.offline import Received, received, refuse, write_apart
from evaluator.export.own_files import MEND
from evaluator.export.tracked import Tracked
from evaluator.text import file_name, plain

_MARK = "evaluator_identity"
"""The setting by which a run of ours is known."""


def write(
    runs: Sequence[Tracked], folder: Path, *, project: str, overwrite: bool = False
) -> list[Path]:
    """A database in the folder; a run that is exported again replaces itself.

    Raises ConfigError, before anything is written, where a run of its name is there which no
    export wrote, or which is of another run, unless `overwrite`.
    """
    require_installed("trackio", "trackio", "--to trackio")
    database = folder / f"{project.replace('.', '')}.db"  # trackio leaves dots out
    _require_trackios(database)
    environment = {"TRACKIO_DIR": str(folder.resolve()), "GRADIO_ANALYTICS_ENABLED": "False"}
    write_apart(
        __name__, runs, folder, project=project, environment=environment, overwrite=overwrite
    )
    return [database]


def _require_trackios(database: Path) -> None:
    """Raise ConfigError where a file of the database's name is no database of trackio's."""
    if not os.path.lexists(database):
        return
    try:
        with closing(sqlite3.connect(database)) as there:
            if there.execute("SELECT name FROM sqlite_master").fetchall():
                there.execute("SELECT run_name FROM metrics LIMIT 1").fetchall()
    except sqlite3.Error as error:
        raise ConfigError(
            f"{plain(database)}: expected no file, or a database of trackio's, got another's "
            f"({plain(error, limit=200)}). Name another --project or --output, or move it away."
        ) from error


def _named(runs: Sequence[Tracked]) -> dict[str, Tracked]:
    """By names of their own that may be part of a path."""
    named: dict[str, Tracked] = {}
    for run in runs:
        name = file_name(run.name)
        named[f"{name}-{run.identity[:8]}" if name in named else name] = run
    return named


def _make_room(named: Mapping[str, Tracked], given: Received) -> None:
    """Remove older runs of these names; refuse where one is another's, or of another run."""
    import trackio

    try:
        there = [old for old in trackio.Api().runs(given.project) if old.name in named]
    except ValueError:  # there is no such project yet
        there = []
    marks = {old.name: (old.config or {}).get(_MARK) for old in there}
    for name, mark in marks.items() if not given.overwrite else ():
        expected = f"{given.folder}: expected no run '{name}' in project '{given.project}', or one "
        if mark is None:
            refuse(
                f"{expected}that an earlier export wrote, got another's. Name another --project or "
                "--output, or replace it: --overwrite."
            )
        if mark != named[name].identity:
            refuse(
                f"{expected}of the run that is exported, got one of another run of this name. "
                f"{MEND}"
            )
    for old in there:
        old.delete()
    for name in named:
        shutil.rmtree(trackio.get_project_media_path(given.project, name), ignore_errors=True)


def _log(name: str, run: Tracked, project: str) -> None:
    import trackio
    from PIL import Image

    logged = trackio.init(
        project=project, name=name, config={**run.config, _MARK: run.identity},
        embed=False, auto_log_gpu=False, auto_log_cpu=False,
    )  # fmt: skip
    shown: dict[str, Any] = dict(run.scalars)
    if run.rows:
        columns = list(run.rows[0])
        cells = [[_cell(row[name]) for name in columns] for row in run.rows]
        shown["results"] = trackio.Table(columns=columns, data=cells)
    for image in run.images:
        picture = Image.open(io.BytesIO(image.content))
        shown[f"samples/{image.name}"] = trackio.Image(picture, caption=image.caption)
    logged.log(shown, step=0)
    logged.finish()


def _cell(value: Any) -> Any:
    return "; ".join(value) if isinstance(value, list) else value


if __name__ == "__main__":
    given = received()
    named = _named(given.runs)
    _make_room(named, given)
    for called, each in named.items():
        _log(called, each, given.project)
