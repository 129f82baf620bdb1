"""`fetch`: everything that a configuration needs, while there is a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluator.cli.printing import plain


def fetch(
    config: Annotated[Path, typer.Argument(help="Configuration file (YAML).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a.b=value; the value is YAML. May be repeated."),
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Import code that the configuration names.")
    ] = False,
) -> None:
    """Fetch weights, prompts and references into the caches, for nodes without a network."""
    from evaluator.config.points import Sweep, load_runs
    from evaluator.runner.fetch import fetch as fetch_all

    loaded = load_runs(config, overrides or [])
    configs = [p.config for p in loaded.points] if isinstance(loaded, Sweep) else [loaded]
    said: set[str] = set()
    for each in configs:
        for line in fetch_all(each, relative_to=config.parent, allow_code=allow_code):
            if line not in said:  # what points share is fetched once
                typer.echo(plain(line))
            said.add(line)
