"""`validate`: what a configuration would do, and all that is wrong with it."""

from __future__ import annotations

import typer

from evaluator.cli.configured import (
    AllowCodeOption,
    ConfigArgument,
    LimitOption,
    SetOption,
    settings_of,
)
from evaluator.cli.printing import plain


def validate(
    config: ConfigArgument,
    overrides: SetOption = None,
    limit: LimitOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Check a configuration and say what it would do; imports no code that it names."""
    from evaluator.runner.dryrun import describe_file

    settings = settings_of(overrides, limit)
    for line in describe_file(config, settings, allow_code=allow_code):
        typer.echo(plain(line))
