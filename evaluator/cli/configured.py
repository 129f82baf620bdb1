"""What `run` and `validate` take of a configuration, and how it is laid over its file."""

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


def settings_of(overrides: Sequence[str] | None, limit: int | None) -> list[str]:
    """All that is laid over the file: what `--set` says, then `--limit`."""
    return [*(overrides or []), *([] if limit is None else [f"prompts.limit={limit}"])]
