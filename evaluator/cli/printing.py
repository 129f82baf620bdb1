"""Text for the terminal: prompts, keys and messages of files are untrusted."""

from __future__ import annotations

from collections.abc import Iterable

import typer


def plain(text: str) -> str:
    """Without control characters."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_lines(lines: Iterable[str]) -> None:
    """Each as one line of plain text."""
    for line in lines:
        typer.echo(plain(line.replace("\n", "\N{REPLACEMENT CHARACTER}")))
