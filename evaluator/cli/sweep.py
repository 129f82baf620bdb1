"""`sweep`: what the points of a sweep say together; and how `run` works through them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluator.cli.printing import plain, print_outcome, print_warning, terminal_width
from evaluator.text import count_of

if TYPE_CHECKING:
    from evaluator.config.points import Sweep


def sweep(
    sweep: Annotated[
        Path, typer.Argument(help="Folder of a sweep, or the configuration it was made with.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the page; default: FOLDER/report.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics to weigh against each other, separated by commas: two or three."
        ),
    ] = None,
) -> None:
    """Draw what the points of a sweep trade against each other: one page, figures and tables."""
    from evaluator.report.sweep import write_sweep

    names = () if metrics is None else tuple(name.strip() for name in metrics.split(","))
    typer.echo(str(write_sweep(_folder(sweep), output, metrics=names)))


def _folder(given: Path) -> Path:
    """The folder of a sweep that a configuration names, or the folder itself."""
    if not given.is_file():
        return given
    from evaluator.config.points import Sweep, load_runs
    from evaluator.errors import ConfigError

    loaded = load_runs(given)
    if not isinstance(loaded, Sweep):
        raise ConfigError(
            f"{given}: expected a configuration with a section sweep, got one of a single run. "
            "`evaluator report` is about one run."
        )
    return Path(loaded.output) / loaded.name


def run_points(
    sweep: Sweep, path: Path, relative_to: Path, allow_code: bool, retry_failed: bool, report: bool
) -> int:
    """Run or continue a sweep and say what came out; returns the exit status."""
    from evaluator.report.sweep import sweep_table
    from evaluator.runner.sweep import run_sweep

    ended = run_sweep(
        sweep, path, allow_code=allow_code, relative_to=relative_to, retry_failed=retry_failed
    )
    if ended is None:
        return 0  # another process of this launch speaks
    if len(ended.points) == 1 and (outcome := ended.points[0].outcome) is not None:
        print_outcome(outcome)
    else:
        typer.echo(sweep_table(path, width=terminal_width()))
    for point in ended.points:
        for line in point.troubles:
            typer.echo(plain(f"{point.point.suffix}: {line}"), err=True)
    whole = sum(point.exit_status == 0 for point in ended.points)
    typer.echo(f"\n{whole} of {count_of(len(ended.points), 'point')} complete\nsweep: {path}")
    if report:
        report_points(path)
    return ended.exit_status


def report_points(
    folder: Path,
    output: Path | None = None,
    *,
    thumbnails: int | None = None,
    single_file: bool = False,
) -> None:
    """Write the report of each point that was begun, then the page about all of them."""
    from evaluator.report import write_report
    from evaluator.report.sweep import write_sweep
    from evaluator.store.rundir import RunDirectory
    from evaluator.store.sweeps import read_points

    for point in read_points(folder)[1]:
        if (folder / point.folder / "init").is_dir():
            run = RunDirectory.open(folder / point.folder)
            page = write_report(
                run, thumbnails=thumbnails, single_file=single_file, say=print_warning
            )
            typer.echo(f"report: {page}")
    typer.echo(f"report: {write_sweep(folder, output)}")


def aggregate_sweep(folder: Path, allow_code: bool) -> int:
    """Compute the numbers of every point again and show them; returns the exit status."""
    from evaluator.report.sweep import sweep_table
    from evaluator.runner.sweep_numbers import aggregate_points

    status = aggregate_points(folder, allow_code=allow_code)
    if status is None:
        return 0  # another process of this launch speaks
    typer.echo(sweep_table(folder, width=terminal_width()))
    return status
