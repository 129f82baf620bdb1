"""`status`: how far a run is, for people and for the scripts that decide whether to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluator.cli.printing import print_lines


def status(run: Annotated[Path, typer.Argument(help="Run directory.")]) -> None:
    """Say how far a run is: exit status 0 complete, 1 failed, 3 incomplete."""
    from evaluator.runner.status import read_status
    from evaluator.store.rundir import RunDirectory

    state = read_status(RunDirectory.open(run))
    print_lines(state.lines())
    if state.exit_status:
        raise typer.Exit(state.exit_status)
