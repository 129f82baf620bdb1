"""TensorBoard: a folder a run with scalars, their intervals, settings, and some images.

`tensorboard --logdir FOLDER` shows the runs side by side; its HPARAMS page is a table of settings
and numbers. Exporting the same run again replaces its file by the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from evaluator.export.extras import require
from evaluator.export.own_files import write_files
from evaluator.export.tracked import Tracked
from evaluator.text import file_name

EVENTS = "events.out.tfevents.0.evaluator"
"""TensorBoard reads files with `tfevents` in their name."""


def write(runs: Sequence[Tracked], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """One file of events a run, in a folder of its name."""
    require("tensorboard", "tensorboard", "--to tensorboard")
    made: dict[str, Tracked] = {}
    for run in runs:
        name = f"{file_name(run.name)}/{EVENTS}"
        if name in made:
            name = f"{file_name(run.name)}-{run.identity[:8]}/{EVENTS}"
        made[name] = run
    files = {name: _events(run) for name, run in made.items()}
    identities = {name: run.identity for name, run in made.items()}
    return write_files(folder, files, runs=identities, overwrite=overwrite)


def _events(run: Tracked) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    when = 0.0
    if run.made_at is not None:
        when = datetime.fromisoformat(run.made_at.replace("Z", "+00:00")).timestamp()
    out = io.BytesIO()
    records = RecordWriter(out)
    records.write(Event(wall_time=when, file_version="brain.Event:2").SerializeToString())
    for summary in _summaries(run):
        records.write(Event(wall_time=when, step=0, summary=summary).SerializeToString())
    return out.getvalue()


def _summaries(run: Tracked) -> Iterator[Any]:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import summary as torch_summary

    make: Any = torch_summary  # untyped
    for tag, value in run.scalars.items():
        yield make.scalar(tag, value)
    margins = {
        name: ["Margin", [name, f"{name}/low", f"{name}/high"]]
        for name in run.notes
        if f"{name}/low" in run.scalars and f"{name}/high" in run.scalars
    }
    if margins:
        yield make.custom_scalars({"95 % intervals": margins})
    for name, note in run.notes.items():  # a scalar has seven digits there
        exact = [repr(run.scalars[name])] if name in run.scalars else []
        yield make.text(f"{name}/note", _indented("; ".join([*exact, note])))
    yield make.text(
        "settings", _indented("\n".join(f"{n}: {v}" for n, v in run.settings().items()))
    )
    main = {name: run.scalars[name] for name in run.notes if name in run.scalars}
    yield from make.hparams(_hyperparameters(run), main)
    for image in run.images:
        encoded = Summary.Image(**_size(image.content), encoded_image_string=image.content)
        yield Summary(value=[Summary.Value(tag=f"samples/{image.name}", image=encoded)])
        yield make.text(f"samples/{image.name}/prompt", _indented(image.caption))


def _hyperparameters(run: Tracked) -> dict[str, str | int | float | bool]:
    """The settings that fit into a cell: those of the configuration that are no lists."""
    settings = run.settings().items()
    return {
        name.removeprefix("config."): value
        for name, value in settings
        if name.startswith("config.") and not str(value).startswith(("[", "{"))
    }


def _size(png: bytes) -> dict[str, int]:
    from PIL import Image

    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return {"height": image.height, "width": image.width, "colorspace": 3}


def _indented(said: str) -> str:
    """Markdown that shows text as it is, whatever markup or HTML it holds."""
    return "\n".join(f"    {line}" for line in said.splitlines())
