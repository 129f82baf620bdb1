"""`status`: how far a run is, for people and for the scripts that decide whether to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluator.cli.printing import print_lines


def status(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read every file; what is damaged is set apart for `run`."),
    ] = False,
) -> None:
    """Say how far a run is: exit status 0 complete, 1 failed, 3 incomplete."""
    from evaluator.runner.status import read_status
    from evaluator.store.quarantine import set_apart_shard
    from evaluator.store.rundir import RunDirectory

    directory = RunDirectory.open(run)
    for index in directory.committed() if verify else ():
        set_apart_shard(directory, index)
    state = read_status(directory)
    print_lines(state.lines())
    if state.exit_status:
        raise typer.Exit(state.exit_status)
