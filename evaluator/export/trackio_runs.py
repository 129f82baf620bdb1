"""trackio, local: a folder with a database and media, shown by `trackio show` with TRACKIO_DIR."""

from __future__ import annotations

import io
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from evaluator.export.extras import require_installed
from evaluator.export.offline import Received, received, refuse, write_apart
from evaluator.export.tracked import Tracked
from evaluator.text import file_name

_MARK = "evaluator_identity"
"""The setting by which a run of ours is known."""


def write(
    runs: Sequence[Tracked], folder: Path, *, project: str, overwrite: bool = False
) -> list[Path]:
    """A database in the folder; a run that is exported again replaces itself.

    Raises ConfigError, before anything is written, where a run of its name is there which no
    export wrote, unless `overwrite`.
    """
    require_installed("trackio", "trackio", "--to trackio")
    environment = {"TRACKIO_DIR": str(folder.resolve()), "GRADIO_ANALYTICS_ENABLED": "False"}
    write_apart(
        __name__, runs, folder, project=project, environment=environment, overwrite=overwrite
    )
    stem = project.replace(".", "")  # trackio leaves dots out
    return [path for path in sorted(folder.glob("*.db")) if path.stem == stem]


def _named(runs: Sequence[Tracked]) -> dict[str, Tracked]:
    """By names of their own that may be part of a path."""
    named: dict[str, Tracked] = {}
    for run in runs:
        name = file_name(run.name)
        named[f"{name}-{run.identity[:8]}" if name in named else name] = run
    return named


def _make_room(names: Collection[str], given: Received) -> None:
    """Remove older runs of these names; refuse where one is another's."""
    import trackio

    try:
        there = [old for old in trackio.Api().runs(given.project) if old.name in names]
    except ValueError:  # there is no such project yet
        there = []
    others = [old.name for old in there if _MARK not in (old.config or {})]
    if others and not given.overwrite:
        refuse(
            f"{given.folder}: expected no run '{others[0]}' in project '{given.project}', or one "
            "that an earlier export wrote, got another's. Name another --project or --output, or "
            "replace it: --overwrite."
        )
    for old in there:
        old.delete()
    for name in names:
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
