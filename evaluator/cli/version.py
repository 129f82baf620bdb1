"""`--version`: this program, and the packages whose versions can change a number."""

from __future__ import annotations

from typing import Annotated

import typer


def _print(asked: bool) -> None:
    """Say what a run would record of them, and leave; none of them is imported for it."""
    if asked:
        from evaluator.runner.identity import versions

        found = versions()
        for name in ("evaluator", *(name for name in found if name != "evaluator")):
            typer.echo(f"{name} {found[name]}")
        raise typer.Exit


def about(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print,
            is_eager=True,
            help="Print the versions of this program and of what it computes with.",
        ),
    ] = False,
) -> None:
    """A distributed batch evaluator for diffusion models."""
