"""`validate`: what a configuration would do, and all that is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluator.cli.printing import plain


def validate(
    config: Annotated[Path, typer.Argument(help="Configuration file (YAML).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a.b=value; the value is YAML. May be repeated."),
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Import code that the configuration names.")
    ] = False,
) -> None:
    """Check a configuration and say what it would do; imports no code that it names."""
    from evaluator.config.points import load_runs
    from evaluator.runner.dryrun import describe

    loaded = load_runs(config, overrides or [])
    for line in describe(loaded, relative_to=config.parent, allow_code=allow_code):
        typer.echo(plain(line))
