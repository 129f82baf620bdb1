"""One process's part in a launch: join, work, speak if it is the main one, leave."""

from __future__ import annotations

import sys
from pathlib import Path

from evaluator.aggregate.asked import Asked
from evaluator.aggregate.compute import Summary, aggregate
from evaluator.config.schema import RunConfig
from evaluator.distributed import gloo_group, join_world, leave_world, stop_on_signals
from evaluator.runner.job import Outcome, run_evaluation
from evaluator.runner.parts import Trust
from evaluator.store.rundir import RunDirectory


def run_session(
    config: RunConfig, path: Path, *, allow_code: bool, relative_to: Path
) -> Outcome | None:
    """Run or continue an evaluation; the main process prints the results and gets the outcome."""
    _quiet_libraries()
    trust = Trust(allow_code=allow_code, relative_to=relative_to)
    world = join_world(config.runtime.num_processes)
    try:
        with stop_on_signals() as stop:
            outcome = run_evaluation(config, path, world=world, stop=stop, trust=trust)
    finally:
        leave_world()
    if not world.is_main:
        return None
    print_summary(outcome.run, outcome.summary, outcome.errors)
    return outcome


def aggregate_session(path: Path) -> Outcome | None:
    """Compute a run's metrics again, alone or with the other processes of the launch."""
    run = RunDirectory.open(path)
    asked = Asked.read(run)
    world = join_world()
    try:
        summary = aggregate(run, asked, world=world, group=gloo_group(world))
    finally:
        leave_world()
    if not world.is_main:
        return None
    print_summary(run, summary, ())
    return Outcome(run, summary)


def print_summary(run: RunDirectory, summary: Summary, errors: tuple[str, ...]) -> None:
    """Print the table of results, what is missing, and where the run is."""
    import shutil

    from evaluator.report.table import results_table

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(results_table(summary.record()["metrics"], width=width))
    counts = summary.counts
    print(f"\n{counts.committed}/{counts.planned} samples", end="")
    print(f", {counts.errors} with errors" if counts.errors else "", end="")
    print(f", {counts.truncated} prompts truncated" if counts.truncated else "", end="")
    print(f"\nrun: {run.path}")
    for error in errors:
        print(f"failed: {error}", file=sys.stderr)
    for line in summary.error_lines:
        print(f"sample error: {line}", file=sys.stderr)


def _quiet_libraries() -> None:
    """Keep the libraries' progress bars and advice out of the output; errors still show."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
