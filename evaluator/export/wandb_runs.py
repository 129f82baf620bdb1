"""Weights & Biases, offline: run folders that `wandb sync` sends when, and where, a user wants."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluator.durable import explained
from evaluator.export.extras import require_installed
from evaluator.export.offline import received, write_apart
from evaluator.export.tracked import Tracked


def write(runs: Sequence[Tracked], folder: Path, *, project: str) -> list[Path]:
    """`wandb/offline-run-*`, one a run; a run that is exported again replaces its folder.

    It has the same id, by which its folder is known, and by which wandb knows it where it was sent.
    """
    require_installed("wandb", "wandb", "--to wandb")
    there = _folders(folder)
    place = str(folder.resolve())
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": place}
    write_apart(__name__, runs, folder, project=project, environment=environment)
    made = [path for path in _folders(folder) if path not in there]
    for path in made:  # a log of that process, which went with its home
        (path / "logs" / "debug-core.log").unlink(missing_ok=True)
    written = tuple(f"-{run.identity}" for run in runs if _of(run, made))
    for path in there:
        if path.name.endswith(written):
            with explained("replace", path):
                shutil.rmtree(path)
    return made


def _of(run: Tracked, folders: Sequence[Path]) -> bool:
    """Whether one of the folders is this run's."""
    return any(path.name.endswith(f"-{run.identity}") for path in folders)


def _folders(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


def _log(run: Tracked, folder: Path, project: str) -> None:
    import wandb
    from PIL import Image

    settings = wandb.Settings(
        mode="offline", silent=True, console="off", disable_git=True, disable_code=True,
        save_code=False, x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
        x_save_requirements=False, program="evaluator", host="", disable_job_creation=True,
    )  # fmt: skip
    logged = wandb.init(
        project=project, name=run.name, id=run.identity, resume="allow", dir=folder,
        config=run.config, settings=settings,
    )  # fmt: skip
    shown: dict[str, Any] = dict(run.scalars)
    if run.rows:
        columns = list(run.rows[0])
        cells = [[_cell(row[name]) for name in columns] for row in run.rows]
        table = wandb.Table(columns=columns, data=cells, allow_mixed_types=True)
        # Bound before it is logged, the table is a file of the run. Else it would be an artifact,
        # too, which is sent from where it was made: a folder that was moved would lose it.
        table.bind_to_run(logged, "results", 0)
        shown["results"] = table
    if run.images:
        shown["samples"] = [
            wandb.Image(
                Image.open(io.BytesIO(image.content)), caption=f"{image.name}: {image.caption}"
            )
            for image in run.images
        ]
    logged.log(shown, step=0)
    logged.summary.update(run.scalars)
    logged.finish()


def _cell(value: Any) -> Any:
    return "; ".join(value) if isinstance(value, list) else value


if __name__ == "__main__":
    given = received()
    for each in given.runs:
        _log(each, given.folder, given.project)
