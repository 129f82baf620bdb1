"""`evaluator query`: SQL over the tables of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evaluator.cli.printing import plain, print_lines, print_warning, terminal_width
from evaluator.text import count_of

if TYPE_CHECKING:
    import pyarrow as pa

    from evaluator.runs import Run

MAX_CELL = 60
"""Characters of a cell in the terminal; files get all."""


def query(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... ['SQL']",
            help="Run directories or folders with runs, then one SELECT; without it, the tables"
            " are listed. Of several runs, a column `run` says which.",
        ),
    ],
    csv: Annotated[str | None, typer.Option(help="Write to a file, or '-'.")] = None,
    json: Annotated[
        str | None, typer.Option(help="Write to a file, or '-': one object a line.")
    ] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write to a file.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 50,
    timeout: Annotated[
        int, typer.Option(min=0, help="Seconds after which a query is given up; 0: never.")
    ] = 600,
) -> None:
    """Ask the tables of runs with SQL (DuckDB); nothing but these tables can be read."""
    from evaluator.export.query import Query
    from evaluator.runs import find_runs, left_out

    paths, sql = _split(what)
    runs = find_runs(paths)
    database = Query(runs)
    if sql is None:
        for name, columns in database.tables():
            print_lines([name, *(f"  {column}" for column in columns)])
        return
    found = database.run(sql, seconds=timeout or None)
    for line in left_out(paths):
        print_warning(line)
    for name, run in runs.items():
        if not run.complete:
            of = f"{len(run):,} of {count_of(run.num_planned, 'sample')}"
            print_warning(f"{name}: incomplete, {of} are in its tables")
        if "metrics" in database.opened and (why := _no_numbers(run)):
            print_warning(f"{name}: in metrics it has no rows: {why}")
    _write(found, csv=csv, json=json, parquet=parquet)
    if csv is None and json is None and parquet is None:
        _print(found, rows)


def _no_numbers(run: Run) -> str:
    """Why a run has no numbers; empty where it has."""
    from evaluator.errors import EvaluatorError

    try:
        return "" if run.metrics else "none was asked for"
    except EvaluatorError as error:
        return str(error)


def _split(what: list[str]) -> tuple[list[Path], str | None]:
    """The runs, and the SQL where the last argument is no folder."""
    from evaluator.errors import ConfigError

    last = what[-1]
    if Path(last).is_dir() or "/" in last.split(" ")[0]:
        return [Path(each) for each in what], None
    if len(what) == 1:
        raise ConfigError(
            f"query: expected runs and then a SELECT, got '{plain(last)}' alone, which is no "
            "folder. evaluator query RUN 'SELECT …'"
        )
    return [Path(each) for each in what[:-1]], last


def _write(found: pa.Table, *, csv: str | None, json: str | None, parquet: Path | None) -> None:
    from evaluator.durable import write_atomically
    from evaluator.export.csv_tables import as_csv
    from evaluator.export.json_tables import as_lines
    from evaluator.export.parquet_tables import write_parquet

    for place, text in ((csv, as_csv), (json, as_lines)):
        if place == "-":
            typer.echo(text(found), nl=False)
        elif place is not None:
            write_atomically(Path(place), text(found).encode())
            typer.echo(f"{plain(place)}: {count_of(found.num_rows, 'row')}")
    if parquet is not None:
        write_parquet(found, parquet)
        typer.echo(f"{plain(str(parquet))}: {count_of(found.num_rows, 'row')}")


def _print(found: pa.Table, rows: int) -> None:
    from evaluator.export.query import shown
    from evaluator.report.fitted import fitted

    text = [[_cell(value) for value in row] for row in shown(found, limit=rows)]
    titles = [_cell(name) for name in found.column_names]
    rigid = [i for i, field in enumerate(found.schema) if not _is_text(field.type)]
    typer.echo(
        fitted(
            titles, text, [[] for _ in text], width=terminal_width(), rigid=rigid,
            elsewhere="name fewer, or --csv - for whole lines",
        )
    )  # fmt: skip
    if found.num_rows > rows:
        typer.echo(f"… {found.num_rows - rows:,} more rows; --rows N prints more, --csv writes all")


def _is_text(kind: pa.DataType) -> bool:
    """Whether its cells may be shortened: a number without its last digits is another."""
    import pyarrow as pa

    of = pa.types
    return not (of.is_integer(kind) or of.is_floating(kind) or of.is_decimal(kind) or
                of.is_boolean(kind) or of.is_temporal(kind))  # fmt: skip


def _cell(value: Any) -> str:
    from evaluator.text import plain as visible

    if value is None:
        return ""
    return visible(f"{value:.6g}" if isinstance(value, float) else value, limit=MAX_CELL)
