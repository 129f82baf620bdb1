"""`compare`: two or more runs on the same prompts, number by number."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from evaluator.cli.printing import leave, plain, terminal_width


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; the first is the baseline.")],
    by: Annotated[
        str | None, typer.Option(help="Tag of the prompts: compare each of its values, too.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names separated by commas; default: all that they share.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder; default: compare-A-B, after the runs' names.")
    ] = None,
    permutations: Annotated[
        int,
        typer.Option(min=99, help="Sign flips drawn where there are too many to enumerate."),
    ] = 9_999,
    changed: Annotated[
        int, typer.Option(min=0, help="Samples that changed most, kept of each score, each way.")
    ] = 10,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Put the pictures into the page.")
    ] = False,
    json: Annotated[
        str | None, typer.Option(help="Write the comparison to a file as well, or to '-'.")
    ] = None,
) -> None:
    """Compare runs sample by sample: exit status 0 all compared, 1 not all, 2 nothing."""
    from evaluator.cli.compare_table import comparison_table
    from evaluator.comparison import compare_runs
    from evaluator.comparison.folder import default_folder, require_folder, write_folder
    from evaluator.comparison.opened import open_runs
    from evaluator.comparison.pairing import Request
    from evaluator.report.beside import require_ours
    from evaluator.report.comparison import GENERATOR, RECORD, write_comparison

    opened = open_runs(runs)
    folder = output or default_folder([run.name for run in opened])
    require_folder(folder)
    require_ours(folder.resolve(), record=RECORD, generator=GENERATOR)
    names = None if metrics is None else tuple(n.strip() for n in metrics.split(",") if n.strip())
    asked = Request(by, names, permutations, changed)
    compared = compare_runs(runs, asked, _say if sys.stderr.isatty() else None)
    write_folder(compared, folder)
    comparison = compared.comparison
    found = [each.run for each in opened]
    page = write_comparison(comparison, found, folder, single_file=single_file)
    only_json = json == "-"
    typer.echo(comparison_table(comparison, width=terminal_width()), err=only_json)
    typer.echo(f"\ncomparison: {plain(str(folder))}\npage: {plain(str(page))}", err=only_json)
    if json is not None:
        _write_json(comparison.record(), json)
    leave(comparison.exit_status)


def _say(line: str) -> None:
    typer.echo(plain(line), err=True)


def _write_json(record: dict[str, object], place: str) -> None:
    import json

    from evaluator.durable import write_atomically

    content = json.dumps(record, indent=1, sort_keys=True, allow_nan=False)
    if place == "-":
        typer.echo(content)
    else:
        write_atomically(Path(place), content.encode())
