"""The numbers of every point of a sweep again, from the tables."""

from __future__ import annotations

import sys
from pathlib import Path

from evaluator.distributed import gloo_group, join_world, leave_world
from evaluator.errors import EvaluatorError
from evaluator.runner.session import asked_of, computed_again
from evaluator.store.rundir import RunDirectory
from evaluator.store.sweeps import read_points


def aggregate_points(folder: Path, *, allow_code: bool) -> int | None:
    """Compute the metrics of each point, alone or with the other processes of the launch.

    The main process gets the exit status, the others get None: 1 where a point failed, 3 where one
    is incomplete or not begun, 0 where all is there. A point that fails stops no other.
    """
    _, points = read_points(folder)
    statuses = {0}
    world = join_world()
    try:
        group = gloo_group(world)
        for point in points:
            path = folder / point.folder
            if not (path / "init").is_dir():
                statuses.add(3)
                continue
            try:
                run = RunDirectory.open(path)
                asked = asked_of(run, allow_code=allow_code)
                statuses.add(computed_again(run, asked, world, group).exit_status)
            except EvaluatorError as error:
                statuses.add(3 if error.exit_status == 3 else 1)
                if world.is_main:
                    print(f"{point.folder} failed: {error}", file=sys.stderr)
    finally:
        leave_world()
    worst = next((status for status in (1, 3) if status in statuses), 0)
    return worst if world.is_main else None
