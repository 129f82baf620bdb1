"""`fetch`: everything that a configuration needs, while there is a network."""

from __future__ import annotations

import typer

from evaluator.cli.configured import AllowCodeOption, ConfigArgument, SetOption
from evaluator.cli.printing import plain


def fetch(
    config: ConfigArgument, overrides: SetOption = None, allow_code: AllowCodeOption = False
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
