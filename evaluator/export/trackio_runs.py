"""trackio, local: a folder with a database and media, shown by `trackio show` with TRACKIO_DIR."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from evaluator.export.extras import require_installed
from evaluator.export.offline import received, write_apart
from evaluator.export.tracked import Tracked
from evaluator.text import file_name


def write(runs: Sequence[Tracked], folder: Path, *, project: str) -> list[Path]:
    """A database in the folder; a run that is exported again replaces itself."""
    require_installed("trackio", "trackio", "--to trackio")
    environment = {"TRACKIO_DIR": str(folder.resolve()), "GRADIO_ANALYTICS_ENABLED": "False"}
    write_apart(__name__, runs, folder, project=project, environment=environment)
    return sorted(folder.glob("*.db"))


def _log(run: Tracked, project: str) -> None:
    import trackio
    from PIL import Image

    name = file_name(run.name)  # it becomes part of a path
    media = trackio.get_project_media_path(project, name)
    shutil.rmtree(media, ignore_errors=True)
    with suppress(ValueError):  # there is no such project yet
        for old in list(trackio.Api().runs(project)):
            if old.name == name:
                old.delete()
    logged = trackio.init(
        project=project, name=name, config={**run.config, "identity": run.identity},
        embed=False, auto_log_gpu=False, auto_log_cpu=False,
    )  # fmt: skip
    shown: dict[str, Any] = dict(run.scalars)
    if run.rows:
        columns = list(run.rows[0])
        cells = [[_cell(row[name]) for name in columns] for row in run.rows]
        shown["results"] = trackio.Table(columns=columns, data=cells)
    for i, image in enumerate(run.images):
        picture = Image.open(io.BytesIO(image.content))
        shown[f"samples/{i}"] = trackio.Image(picture, caption=image.caption)
    logged.log(shown, step=0)
    logged.finish()


def _cell(value: Any) -> Any:
    return "; ".join(value) if isinstance(value, list) else value


if __name__ == "__main__":
    _, project, runs = received()
    for each in runs:
        _log(each, project)
