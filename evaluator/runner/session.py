"""One process's part in a launch: join, work, speak if it is the main one, leave."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from evaluator import plugins
from evaluator.aggregate.asked import Asked
from evaluator.aggregate.compute import aggregate
from evaluator.aggregate.summary import Summary
from evaluator.config.schema import RunConfig
from evaluator.distributed import (
    World,
    from_main,
    gloo_group,
    join_world,
    leave_world,
)
from evaluator.errors import CorruptShardError
from evaluator.locations import CODE, PUSH, require_mounted
from evaluator.runner.evaluation import Outcome, run_evaluation
from evaluator.runner.finished import finished_summary
from evaluator.runner.quiet import quiet_libraries
from evaluator.runner.repair import Repairs
from evaluator.runner.surroundings import launch_name
from evaluator.runner.trust import Trust
from evaluator.stopping import stop_on_signals
from evaluator.store.rundir import RunDirectory


def run_session(
    config: RunConfig,
    path: Path,
    *,
    allow_code: bool,
    relative_to: Path,
    retry_failed: bool = False,
) -> Outcome | None:
    """Run or continue an evaluation. The main process gets the outcome; the others get None.

    `retry_failed` tries again what was set aside.
    """
    require_mounted(path, what="the run directory", instead=PUSH)
    trust = Trust(allow_code=allow_code, relative_to=relative_to)
    alone = os.environ.get("WORLD_SIZE", "1") == "1" and config.runtime.num_processes is None
    if alone and (summary := finished_summary(config, path, trust)) is not None:
        return Outcome(RunDirectory.open(path), summary)
    quiet_libraries(generates=config.model.kind != "images")
    world = join_world(config.runtime.num_processes)
    try:
        group = gloo_group(world)
        # One process decides for all: between two looks another launch may finish the run.
        summary = finished_summary(config, path, trust) if world.is_main and group else None
        summary = from_main(summary, world, group)
        launch = launch_name(world, group)
        if summary is not None:
            outcome = Outcome(RunDirectory.open(path), summary)
        else:
            with stop_on_signals(config.runtime.grace_seconds) as stop:
                outcome = run_evaluation(
                    config, path, world=world, group=group, stop=stop, trust=trust,
                    retry_failed=retry_failed, launch=launch,
                )  # fmt: skip
    finally:
        leave_world()
    return outcome if world.is_main else None


def aggregate_session(path: Path, *, allow_code: bool) -> Outcome | None:
    """Compute a run's metrics again, alone or with the other processes of the launch."""
    run = RunDirectory.open(path)
    asked = asked_of(run, allow_code=allow_code)
    world = join_world()
    try:
        summary = computed_again(run, asked, world, gloo_group(world))
    finally:
        leave_world()
    return Outcome(run, summary) if world.is_main else None


def asked_of(run: RunDirectory, *, allow_code: bool) -> Asked:
    """What a run was asked last; raises ConfigError for code that may not be imported."""
    asked = Asked.read(run)
    for metric in asked.metrics:
        if CODE.match(metric.name):
            plugins.check("metric", metric.name, {}, allow_code=allow_code)
    return asked


def computed_again(run: RunDirectory, asked: Asked, world: World, group: Any) -> Summary:
    """The numbers of a run from its tables; damaged shards are set apart."""
    repairs = Repairs()
    while True:
        try:
            return aggregate(run, asked, world=world, group=group)
        except CorruptShardError as error:  # every process of the launch met it
            repairs.set_apart(error)
