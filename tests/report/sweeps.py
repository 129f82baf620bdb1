"""Folders of sweeps as `run` leaves them, without a model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.leaderboard.synthetic import SetNumber, make_run

Numbers = Sequence[Any]


def make_sweep(
    folder: Path,
    values: Sequence[Mapping[str, Any]],
    numbers: Callable[[int], Numbers | None],
    *,
    name: str = "a sweep",
    **run: Any,
) -> Path:
    """`numbers(i)` are those of point i; None: its run was not begun."""
    points = []
    for i, point in enumerate(values):
        points.append({"folder": f"point-{i}", "name": f"run-{i}", "values": dict(point)})
        if (found := numbers(i)) is not None:
            make_run(folder / f"point-{i}", found, num_prompts=30, **run)
    folder.mkdir(parents=True, exist_ok=True)
    paths = list(dict.fromkeys(path for point in values for path in point))
    record = {"format": 1, "name": name, "paths": paths, "points": points}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


def traded(i: int) -> Numbers:
    """Guidance i + 1: a worse distance, a better score, and groups of both."""
    return [
        SetNumber("fd_digits", 10.0 + 2 * i, reach=0.4),
        SetNumber("recall_digits", 0.9 - 0.1 * i, reach=0.02, higher_is_better=True),
        SetNumber("clip_score", 20.0 + min(i, 2), reach=0.1, higher_is_better=True),
        *(
            SetNumber("clip_score", 20.0 + i + j, higher_is_better=True, group={"colour": tag})
            for j, tag in enumerate(("red", "green", "blue"))
        ),
    ]


GUIDANCE = [{"generation.guidance_scale": scale} for scale in (1, 2, 3, 4)]
