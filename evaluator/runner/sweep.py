"""All points of a sweep, one after the other: each a run of its own, with what is loaded shared.

Processes of one launch work on each point together. Workers that are independent of each other
may be at different points: one that finds nothing to take goes on to the next, and comes back.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from evaluator.aggregate.asked import asked_metrics
from evaluator.aggregate.summary import Summary
from evaluator.config.points import Point, Sweep, once_for_all
from evaluator.distributed import from_all, from_main, gloo_group, join_world, leave_world
from evaluator.errors import ConfigError, EvaluatorError, Preempted, RunDirectoryError
from evaluator.locations import PUSH, require_mounted
from evaluator.runner.evaluation import Outcome, evaluate
from evaluator.runner.finished import finished_summary
from evaluator.runner.parts import check_names, with_implied
from evaluator.runner.quiet import quiet_libraries
from evaluator.runner.surroundings import Surroundings, launch_name
from evaluator.runner.trust import Trust
from evaluator.runner.work import OthersAtWork
from evaluator.stopping import stop_on_signals
from evaluator.store.rundir import RunDirectory
from evaluator.store.sweeps import write_points

AGREEMENT_TIMEOUT = timedelta(days=7)
"""How long one that failed at a point waits for the others to come to its end, or to fail too."""


@dataclass(frozen=True)
class PointOutcome:
    """How one point ended."""

    point: Point
    outcome: Outcome | None
    """None where it failed as a whole."""
    error: str = ""
    """Why it failed as a whole."""

    @property
    def exit_status(self) -> int:
        """0 all there, 1 something failed for good, 3 incomplete."""
        return 1 if self.outcome is None else self.outcome.exit_status

    @property
    def troubles(self) -> list[str]:
        """A line for everything that failed."""
        if self.outcome is None:
            return [f"failed: {self.error}"]
        summary = self.outcome.summary
        lines = [f"failed: {error}" for error in self.outcome.errors]
        lines += [f"damaged: {line}; the same run makes it again" for line in self.outcome.damaged]
        lines += [f"sample error: {line}" for line in summary.error_lines]
        return lines + [
            f"no number: {': '.join([metric.name, *metric.warnings[:1]])}"
            for metric in summary.metrics
            if metric.value is None
        ]


@dataclass(frozen=True)
class SweepOutcome:
    """How all points ended, in the order of the configuration."""

    path: Path
    points: tuple[PointOutcome, ...]

    @property
    def exit_status(self) -> int:
        """1 if a point failed, else 3 if one is incomplete, else 0."""
        return worst(point.exit_status for point in self.points)


def worst(statuses: Iterable[int]) -> int:
    """Of several exit statuses the one that asks most of whoever reads it: 1, then 3, then 0."""
    found = set(statuses)
    return next((status for status in (1, 3) if status in found), 0)


def run_sweep(
    sweep: Sweep,
    path: Path,
    *,
    allow_code: bool,
    relative_to: Path,
    retry_failed: bool = False,
) -> SweepOutcome | None:
    """Run or continue every point. The main process gets the outcome; the others get None.

    A point that fails does not stop the others. Raises ConfigError before anything is made where
    points name parts that cannot be used, Preempted when told to stop.
    """
    require_mounted(path, what="the folder of the sweep", instead=PUSH)
    if (path / "init").is_dir():
        raise RunDirectoryError(
            f"{path}: expected a folder for the runs of a sweep, got a run directory. Choose "
            "another --output, or give the sweep another name."
        )
    trust = Trust(allow_code=allow_code, relative_to=relative_to)
    asked = {point.config.runtime.num_processes for point in sweep.points}
    if len(asked) > 1:
        raise ConfigError("runtime.num_processes: expected one number for all points, got several")
    (num_processes,) = asked
    alone = os.environ.get("WORLD_SIZE", "1") == "1" and num_processes is None
    done = _finished(sweep, path, trust) if alone else {}
    if len(done) < len(sweep.points):
        _check_parts(sweep, trust)
        quiet_libraries(generates=any(p.config.model.kind != "images" for p in sweep.points))
        world = join_world(num_processes)
        try:
            group = gloo_group(world, AGREEMENT_TIMEOUT)
            # One process decides for all: between two looks another launch may finish a point.
            found = _finished(sweep, path, trust) if world.is_main and group else done
            done = from_main(found, world, group)
            if world.is_main:
                write_points(sweep, path)
            grace = max(point.config.runtime.grace_seconds for point in sweep.points)
            with stop_on_signals(grace) as stop:
                around = Surroundings(world, stop, trust, retry_failed=retry_failed)
                around.launch = launch_name(world, group)
                ended = _Worker(sweep, path, around, group, gloo_group(world)).work(done)
        finally:
            leave_world()
        if not world.is_main:
            return None
    else:
        write_points(sweep, path)
        ended = {}
    outcomes = []
    for point in sweep.points:
        if point.suffix in ended:
            outcomes.append(ended[point.suffix])
        else:
            run = RunDirectory.open(path / point.suffix)
            outcomes.append(PointOutcome(point, Outcome(run, done[point.suffix])))
    return SweepOutcome(path, tuple(outcomes))


def _finished(sweep: Sweep, path: Path, trust: Trust) -> dict[str, Summary]:
    """Suffix → numbers of the points that are finished; what is wrong with one shows later."""
    found = {}
    for point in sweep.points:
        try:
            summary = finished_summary(point.config, path / point.suffix, trust)
        except EvaluatorError:
            continue  # the point meets it again when its turn comes, and says so
        if summary is not None:
            found[point.suffix] = summary
    return found


def _check_parts(sweep: Sweep, trust: Trust) -> None:
    """Raise ConfigError with every part of any point that cannot be found. Imports none."""
    told: dict[str, Sequence[str]] = {}
    for point in sweep.points:
        try:
            check_names(point.config, trust)
            with_implied(point.config.features, asked_metrics(point.config).metrics, trust)
        except ConfigError as error:
            told[point.suffix] = error.faults or (str(error),)
    if told:
        lines = once_for_all(told, len(sweep.points))
        raise ConfigError("the sweep names parts that cannot be used:", tuple(lines))


class _FailedElsewhere(Exception):
    """Another process of the launch failed at the point."""


@dataclass
class _Worker:
    """One process's way through the points."""

    sweep: Sweep
    path: Path
    around: Surroundings
    agreement: Any
    """Process group in which the processes of a launch tell each other what failed."""
    group: Any
    """Process group of the numbers."""
    _visited: set[str] = field(default_factory=set)

    def work(self, done: Mapping[str, Summary]) -> dict[str, PointOutcome]:
        """Suffix → outcome of every point that is not `done`."""
        left = [point for point in self._in_order() if point.suffix not in done]
        ended: dict[str, PointOutcome] = {}
        together = self.around.world.size > 1
        while left:
            for point in left:
                outcome = self._together(point) if together else self._alone(point, waits=False)
                if outcome is not None:
                    ended[point.suffix] = outcome
            left = [point for point in left if point.suffix not in ended]
            if left:  # all that is not done is in the hands of others: wait at the first
                outcome = self._alone(left[0], waits=True)
                assert outcome is not None, "whoever waits comes to an end"
                ended[left[0].suffix] = outcome
                left = left[1:]
        return ended

    def _in_order(self) -> list[Point]:
        """Points with one model one after the other, so that each model is loaded once."""
        sections = [point.config.model.model_dump_json() for point in self.sweep.points]
        first = {section: sections.index(section) for section in sections}
        ranked = sorted(range(len(sections)), key=lambda i: first[sections[i]])
        return [self.sweep.points[i] for i in ranked]

    def _alone(self, point: Point, *, waits: bool) -> PointOutcome | None:
        """One point by this process; None where others hold all that is left of it."""
        path = self.path / point.suffix
        try:
            summary = finished_summary(point.config, path, self.around.trust)
            if summary is not None:  # another worker was there meanwhile
                return PointOutcome(point, Outcome(RunDirectory.open(path), summary))
            return PointOutcome(point, self._evaluate(point, waits=waits))
        except OthersAtWork:
            return None
        except Preempted:
            raise
        except EvaluatorError as error:
            return self._failed(point, str(error))
        except Exception as error:  # the others go on; what no message foresaw is told in full
            traceback.print_exc()
            return self._failed(point, f"{type(error).__name__}: {error}")

    def _together(self, point: Point) -> PointOutcome:
        """One point by all processes of the launch, which agree on whether it failed."""
        try:
            outcome = self._evaluate(point, before_numbers=self._require_all_well)
        except _FailedElsewhere as error:
            return self._failed(point, str(error))
        except Preempted:
            raise
        except EvaluatorError as error:
            return self._failed(point, self._failures(str(error)))
        except Exception as error:  # the others go on; what no message foresaw is told in full
            traceback.print_exc()
            return self._failed(point, self._failures(f"{type(error).__name__}: {error}"))
        if failures := self._failures(None):
            return self._failed(point, failures)
        return PointOutcome(point, outcome)

    def _require_all_well(self) -> None:
        if failures := self._failures(None):
            raise _FailedElsewhere(failures)

    def _failures(self, error: str | None) -> str:
        """What went wrong on any process of the launch, each once; empty where nothing did."""
        told: dict[str, list[int]] = {}
        for rank, said in enumerate(from_all(error, self.agreement)):
            if said is not None:
                told.setdefault(said, []).append(rank)
        return "; ".join(
            said if len(ranks) == self.around.world.size else f"rank {ranks[0]}: {said}"
            for said, ranks in told.items()
        )

    def _evaluate(
        self, point: Point, *, waits: bool = True, before_numbers: Callable[[], None] | None = None
    ) -> Outcome:
        self.around.stop.raise_if_set()
        retry = self.around.retry_failed and point.suffix not in self._visited
        self._visited.add(point.suffix)
        around = replace(self.around, waits=waits, retry_failed=retry)
        path = self.path / point.suffix
        return evaluate(point.config, path, around, group=self.group, before_numbers=before_numbers)

    def _failed(self, point: Point, error: str) -> PointOutcome:
        if self.around.world.is_main and point is not self.sweep.points[-1]:
            print(f"{point.config.name} failed, the others go on: {error}", file=sys.stderr)
        return PointOutcome(point, None, error)
