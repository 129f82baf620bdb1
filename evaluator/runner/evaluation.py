"""A whole evaluation: references, samples, features, numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evaluator.aggregate.asked import Asked, asked_metrics
from evaluator.aggregate.summary import Summary
from evaluator.config.schema import RunConfig
from evaluator.distributed import World, set_threads, use_deterministic_kernels
from evaluator.errors import CorruptShardError
from evaluator.runner import identity
from evaluator.runner.finished import request_of
from evaluator.runner.job import RunJob
from evaluator.runner.numbers import Numbers
from evaluator.runner.parts import check_names, with_implied
from evaluator.runner.references import prepare_references
from evaluator.runner.repair import Repairs
from evaluator.runner.status import asked_tables
from evaluator.runner.surroundings import Surroundings
from evaluator.runner.trust import Trust
from evaluator.stopping import StopRequest
from evaluator.store.quarantine import waiting
from evaluator.store.rundir import RunDirectory


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    run: RunDirectory
    summary: Summary
    errors: tuple[str, ...] = ()
    """Shards that were set aside, and why."""

    @cached_property
    def damaged(self) -> list[str]:
        """A line for everything that was found damaged and is not there again."""
        return [missing.line for missing in waiting(self.run, asked_tables(self.run))]

    @property
    def exit_status(self) -> int:
        """0 all there, 1 something failed for good, 3 incomplete."""
        return 1 if self.errors else self.summary.exit_status


def run_evaluation(
    config: RunConfig,
    path: Path,
    *,
    world: World,
    stop: StopRequest,
    trust: Trust,
    group: Any = None,
    retry_failed: bool = False,
    launch: str | None = None,
) -> Outcome:
    """The whole job in this process, together with all others that work on `path`.

    `group` is the process group of the launch, used at the end and never while shards are made.
    `retry_failed` tries again what was set aside, once for all processes of one `launch`.
    """
    around = Surroundings(world, stop, trust, retry_failed=retry_failed)
    around.launch = launch or around.launch
    return evaluate(config, path, around, group=group)


def evaluate(
    config: RunConfig,
    path: Path,
    around: Surroundings,
    *,
    group: Any = None,
    before_numbers: Callable[[], None] | None = None,
) -> Outcome:
    """The same for one of several runs, which share what is loaded.

    `before_numbers` is called when all shards are there, before the processes of a launch compute.
    """
    trust, world = around.trust, around.world
    check_names(config, trust)
    metrics = asked_metrics(config)
    features = with_implied(config.features, metrics.metrics, trust)
    if config.runtime.deterministic:
        use_deterministic_kernels()
    around = replace(around, threads=set_threads(config.runtime.threads, world))
    job = RunJob(config, path, features, around)
    run = job.run  # made or checked before anything is computed
    if world.is_main:
        identity.record_launch(run, config, world)
    numbers = Numbers(run, job.claims, around, group, job.allowance)
    repairs = Repairs()
    waiting_around = replace(around, waits=True)  # nothing else can be done without references
    while True:
        references, errors = prepare_references(config, features, metrics.metrics, waiting_around)
        errors += job.complete(label=config.name)
        asked = Asked(
            metrics=tuple(config.metrics),
            fingerprints=job.fingerprints(),
            references=references,
            request=request_of(config, trust),
        )
        if before_numbers is not None:
            before_numbers()
        if world.is_main:
            asked.write(run)
        try:
            summary = numbers.of(asked)
            break
        except CorruptShardError as error:  # every process of the launch met it
            repairs.set_apart(error)
    return Outcome(run, summary, tuple(errors))
