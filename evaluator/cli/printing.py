"""Text for the terminal: prompts, keys and messages of files are untrusted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from evaluator.text import count_of

if TYPE_CHECKING:
    from evaluator.runner.evaluation import Outcome


def plain(text: str) -> str:
    """Without control characters."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_lines(lines: Iterable[str]) -> None:
    """Each as one line of plain text."""
    for line in lines:
        typer.echo(plain(line.replace("\n", "\N{REPLACEMENT CHARACTER}")))


def print_warning(line: str) -> None:
    """One line, beside what a program may read."""
    typer.echo(plain(f"warning: {line}"), err=True)


def terminal_width() -> int | None:
    """Columns of the terminal; None where a file or a program reads, which gets whole lines."""
    import shutil
    import sys

    return max(40, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None


def print_outcome(outcome: Outcome, *, err: bool = False) -> None:
    """The table of results, what is missing, and where the run is."""
    from evaluator.report.table import results_table

    counts = outcome.summary.counts
    typer.echo(results_table(outcome.summary.record()["metrics"], width=terminal_width()), err=err)
    parts = [f"{counts.committed:,}/{count_of(counts.planned, 'sample')}"]
    parts += [f"{counts.errors} with an error"] * (counts.errors > 0)
    parts += [f"{counts.truncated} with a truncated prompt"] * (counts.truncated > 0)
    parts += [f"{counts.non_finite} not finite"] * (counts.non_finite > 0)
    parts += [f"{counts.black} entirely black"] * (counts.black > 0)
    typer.echo(f"\n{', '.join(parts)}\nrun: {outcome.run.path}", err=err)
    for line in outcome.damaged:
        typer.echo(plain(f"damaged: {line}; the same run makes it again"), err=True)
    for error in outcome.errors:
        typer.echo(plain(f"failed: {error}"), err=True)
    for line in outcome.summary.error_lines:
        typer.echo(plain(f"sample error: {line}"), err=True)


def leave(status: int) -> None:
    """End the verb where its exit status is not 0."""
    if status:
        raise typer.Exit(status)
