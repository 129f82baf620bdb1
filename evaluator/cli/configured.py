"""Options that verbs of a configuration share, and how they are laid over its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

ConfigArgument = Annotated[Path, typer.Argument(help="Configuration file (YAML).")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a.b=value; the value is YAML. May be repeated."),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Take the first N prompts.")]
AllowCodeOption = Annotated[
    bool, typer.Option("--allow-code", help="Import code that the configuration names.")
]
RetryOption = Annotated[
    bool, typer.Option("--retry-failed", help="Try again what was set aside after failures.")
]
ReportOption = Annotated[bool, typer.Option("--report", help="Write the report at the end.")]


def settings_of(overrides: Sequence[str] | None, limit: int | None) -> list[str]:
    """All that is laid over the file: what `--set` says, then `--limit`."""
    return [*(overrides or []), *([] if limit is None else [f"prompts.limit={limit}"])]
