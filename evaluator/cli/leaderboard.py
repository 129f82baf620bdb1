"""The verb `leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluator.cli.printing import plain, terminal_width


def leaderboard(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories, and folders with runs in them.")
    ],
    cited: Annotated[
        Path | None,
        typer.Option(help="YAML with published numbers: rows of name, source, values."),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="These numbers alone, separated by commas.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Sort by this metric; default: the mean win rate.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Judge robustness by the groups of this tag; default: all.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of the leaderboard.")] = Path("leaderboard"),
    json: Annotated[
        str | None, typer.Option(help="Write the board as JSON to a file as well, or to '-'.")
    ] = None,
) -> None:
    """Rank runs, with ranks as ranges; runs whose difference is within noise share a rank."""
    from evaluator.durable import write_atomically
    from evaluator.leaderboard import leaderboard as build
    from evaluator.report.leaderboard_folder import (
        as_json,
        require_leaderboard_folder,
        write_leaderboard,
    )
    from evaluator.report.leaderboard_tables import as_text

    require_leaderboard_folder(output)
    wanted = None if metrics is None else [each.strip() for each in metrics.split(",")]
    board = build(runs, cited=cited, metrics=wanted, sort=sort, by=by)
    written = write_leaderboard(board, output)
    only_json = json == "-"
    typer.echo(as_text(board, width=terminal_width()), err=only_json)
    if only_json:
        typer.echo(as_json(board), nl=False)
    elif json is not None:
        write_atomically(Path(json), as_json(board).encode())
    typer.echo(f"\nleaderboard: {plain(str(written[-1]))}", err=only_json)
    for fault in board.faults:
        typer.echo(plain(f"failed: {fault}"), err=True)
    if board.faults:
        raise typer.Exit(1)
