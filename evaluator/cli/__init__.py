"""The verbs: each parses, calls one function, and prints what it returns.

Heavy packages are imported inside the verbs that need them, so that `--help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evaluator.cli.compare import compare
from evaluator.cli.configured import (
    AllowCodeOption,
    ConfigArgument,
    LimitOption,
    ReportOption,
    RetryOption,
    SetOption,
    settings_of,
)
from evaluator.cli.export import export
from evaluator.cli.fetch import fetch
from evaluator.cli.leaderboard import leaderboard
from evaluator.cli.mirror import pull, push
from evaluator.cli.moments import moments
from evaluator.cli.printing import leave, plain, print_outcome, print_warning
from evaluator.cli.probe import probe
from evaluator.cli.query import query
from evaluator.cli.schedule import schedule
from evaluator.cli.score import score
from evaluator.cli.status import status
from evaluator.cli.study import study
from evaluator.cli.sweep import aggregate_sweep, report_points, run_points, sweep
from evaluator.cli.validate import validate
from evaluator.cli.version import about
from evaluator.text import count_of

app = typer.Typer(
    name="evaluator",
    help="A distributed batch evaluator for diffusion models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.callback()(about)
app.add_typer(probe)
app.add_typer(study)
for _verb in (
    validate, fetch, moments, schedule, push, pull, status, compare, leaderboard, sweep, export,
    query, score,
):  # fmt: skip
    app.command()(_verb)

PATIENCE_SECONDS = 20.0
"""How long a process that has nothing to add waits for the one that says what is wrong."""

RunsArgument = Annotated[Path, typer.Argument(help="Run directory, or the folder of a sweep.")]


@app.command()
def run(
    config: ConfigArgument,
    output: Annotated[
        Path | None, typer.Option(help="Run directory; default: output/name of the configuration.")
    ] = None,
    overrides: SetOption = None,
    limit: LimitOption = None,
    allow_code: AllowCodeOption = False,
    retry_failed: RetryOption = False,
    report: ReportOption = False,
) -> None:
    """Run an evaluation, or a sweep of several; the same command resumes it."""
    from evaluator.config.points import Sweep, load_runs
    from evaluator.runner.session import run_session

    loaded = load_runs(config, settings_of(overrides, limit))
    name = loaded.name if limit is None else f"{loaded.name}-limit{limit}"
    path = output if output is not None else Path(loaded.output) / name
    if isinstance(loaded, Sweep):
        leave(run_points(loaded, path, config.parent, allow_code, retry_failed, report))
        return
    outcome = run_session(
        loaded, path, allow_code=allow_code, relative_to=config.parent, retry_failed=retry_failed
    )
    if outcome is None:
        return  # another process of this launch speaks
    print_outcome(outcome)
    if report:
        from evaluator.report import write_report

        typer.echo(f"report: {write_report(outcome.run)}")
    leave(outcome.exit_status)


@app.command()
def aggregate(run: RunsArgument, allow_code: AllowCodeOption = False) -> None:
    """Compute the metrics of a run again from its tables; works under accelerate launch too."""
    from evaluator.runner.session import aggregate_session
    from evaluator.store.sweeps import is_sweep

    if is_sweep(run):
        leave(aggregate_sweep(run, allow_code))
        return
    outcome = aggregate_session(run, allow_code=allow_code)
    if outcome is not None:
        print_outcome(outcome)
        leave(outcome.exit_status)


@app.command()
def report(
    run: RunsArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder; default: RUN/report. An older report there is replaced; "
            "files of others in it are kept."
        ),
    ] = None,
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Put the pictures into the page: one file.")
    ] = False,
    thumbnails: Annotated[
        int | None,
        typer.Option(min=0, help="Samples with a picture; default: 2000, or 300 in a single file."),
    ] = None,
) -> None:
    """Write the report of a run, or of all of a sweep: pages that open offline, and pictures."""
    from evaluator.report import write_report
    from evaluator.store.rundir import RunDirectory
    from evaluator.store.sweeps import is_sweep

    if is_sweep(run):
        report_points(run, output, thumbnails=thumbnails, single_file=single_file)
        return
    opened = RunDirectory.open(run)
    page = write_report(
        opened, output, thumbnails=thumbnails, single_file=single_file, say=print_warning
    )
    typer.echo(str(page))


@app.command()
def pack(
    source: Annotated[
        str, typer.Argument(help="Prompts file, or folder, .zip, .npz or Parquet of images.")
    ],
    output: Annotated[Path, typer.Argument(help="Folder of the pack.")],
    key_column: Annotated[str | None, typer.Option(help="Column with the keys.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column with the texts.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column with the images.")] = None,
    captions: Annotated[
        str | None, typer.Option(help="Captions of the images: .jsonl, .csv or .txt.")
    ] = None,
) -> None:
    """Pack prompts or images into webdataset tars with an index."""
    from evaluator.data import PackOptions, expand_source
    from evaluator.data import pack as pack_source

    options = PackOptions(
        key_column=key_column,
        text_column=text_column,
        image_column=image_column,
        captions=None if captions is None else expand_source(captions),
    )
    packed = pack_source(expand_source(source), output, options=options)
    typer.echo(
        f"{output}: {count_of(packed.num_samples, 'sample')}, fingerprint {packed.fingerprint[:12]}"
    )


@app.command()
def ls(
    what: Annotated[
        str, typer.Argument(help="metrics, extractors, models, probes, or a folder with runs.")
    ] = "runs",
) -> None:
    """List what there is: parts by kind, or the runs in a folder."""
    from evaluator.runner.listing import list_lines

    for line in list_lines(what):
        typer.echo(plain(line))


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; a user's mistake ends with a message, never with a traceback."""
    import os
    import sys

    from evaluator.errors import ConfigError, EvaluatorError

    try:
        return app(arguments, standalone_mode=True)
    except EvaluatorError as error:
        # A fault of the configuration is every process's: one of each machine says so. Anything
        # else may be one process's alone.
        if not isinstance(error, ConfigError) or os.environ.get("LOCAL_RANK", "0") == "0":
            rank = f" (rank {os.environ['RANK']})" if "RANK" in os.environ else ""
            print(f"error{rank}: {plain(str(error))}", file=sys.stderr)
        else:
            _let_the_first_speak()
        raise SystemExit(error.exit_status) from None


def _let_the_first_speak() -> None:
    """Wait to be ended: launchers end every process as soon as one has left, told or untold."""
    import signal
    import time

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(PATIENCE_SECONDS)
