"""`status`: how far a run is, for people and for the scripts that decide whether to go on."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluator.cli.printing import leave, print_lines

if TYPE_CHECKING:
    from evaluator.store.rundir import RunDirectory


def status(
    run: Annotated[Path, typer.Argument(help="Run directory, or the folder of a sweep.")],
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read every file; what is damaged is set apart for `run`."),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again until there is nothing to do.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")
    ] = 10.0,
) -> None:
    """Say how far a run is: exit status 0 complete, 1 failed, 3 incomplete."""
    from evaluator.runner.status import read_status
    from evaluator.store.quarantine import set_apart_shard
    from evaluator.store.rundir import RunDirectory
    from evaluator.store.sweeps import is_sweep

    if is_sweep(run):
        exit_status = _of_points(run, verify=verify, interval=interval if watch else None)
        raise typer.Exit(exit_status)
    directory = RunDirectory.open(run)
    for index in directory.committed() if verify else ():
        set_apart_shard(directory, index)
    if watch:
        exit_status = _watch(directory, interval)
    else:
        state = read_status(directory)
        print_lines(state.lines())
        exit_status = state.exit_status
    leave(exit_status)


def _of_points(folder: Path, *, verify: bool, interval: float | None) -> int:
    """Print the state of each point of a sweep, again while work is left; its exit status."""
    from evaluator.runner.sweep_status import read_states, verify_points

    if verify:
        verify_points(folder)
    while True:
        state = read_states(folder)
        if interval is not None and sys.stdout.isatty():
            typer.echo("\x1b[2J\x1b[H", nl=False)
        print_lines(state.lines())
        sys.stdout.flush()
        if interval is None or state.exit_status != 3:
            return state.exit_status
        try:
            time.sleep(interval)
        except KeyboardInterrupt:
            return state.exit_status


def _watch(directory: RunDirectory, interval: float) -> int:
    """Print the state of a run until it is complete or failed; returns its exit status."""
    from evaluator.runner.watch import Watch

    watch = Watch(directory)
    while True:
        state, lines = watch.look()
        if sys.stdout.isatty():
            typer.echo("\x1b[2J\x1b[H", nl=False)
        print_lines(lines)
        sys.stdout.flush()
        if state.exit_status != 3:
            return state.exit_status
        try:
            time.sleep(interval)
        except KeyboardInterrupt:
            return state.exit_status
