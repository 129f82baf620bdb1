"""How far each point of a sweep is, read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluator.errors import EvaluatorError
from evaluator.runner.status import Status, read_status
from evaluator.store.quarantine import set_apart_shard
from evaluator.store.rundir import RunDirectory
from evaluator.store.sweeps import KnownPoint, members, read_points
from evaluator.text import count_of


@dataclass(frozen=True, slots=True)
class SweepStatus:
    """The state of every point at one moment."""

    name: str
    points: Sequence[tuple[KnownPoint, Status | str]]
    """Each with its state, or why it has none."""
    left_out: Sequence[str] = ()
    """About the runs in its folder that are no points."""

    @property
    def exit_status(self) -> int:
        """0 all there, 3 where work is left, 1 where nothing is left and a point failed."""
        found = {_exit_status(state) for _, state in self.points}
        return next((status for status in (3, 1) if status in found), 0)

    def lines(self) -> list[str]:
        """For people."""
        done = sum(_exit_status(state) == 0 for _, state in self.points)
        text = [f"{self.name}: {done} of {count_of(len(self.points), 'point')} complete"]
        for point, state in self.points:
            first, *rest = [state] if isinstance(state, str) else state.lines()
            text += [f"{point.folder}: {first}", *rest]
        return [*text, *self.left_out]


def _exit_status(state: Status | str) -> int:
    return 3 if isinstance(state, str) else state.exit_status


def read_states(folder: Path) -> SweepStatus:
    """The state of each point that sweep.json names; others may be writing to them."""
    name, points = read_points(folder)
    found: list[tuple[KnownPoint, Status | str]] = []
    for point in points:
        path = folder / point.folder
        try:
            begun = (path / "init").is_dir()
            found.append((point, read_status(RunDirectory.open(path)) if begun else "not begun"))
        except EvaluatorError as error:
            found.append((point, f"unreadable: {error}"))
    return SweepStatus(name, found, members(folder).left_out)


def verify_points(folder: Path) -> None:
    """Read every file of every point; what is damaged is set apart."""
    for point in read_points(folder)[1]:
        if (folder / point.folder / "init").is_dir():
            run = RunDirectory.open(folder / point.folder)
            for index in run.committed():
                set_apart_shard(run, index)
