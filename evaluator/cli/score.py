"""`evaluator score`: images against images, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluator.cli.configured import AllowCodeOption, ReportOption, RetryOption, SetOption
from evaluator.cli.printing import leave, print_outcome, print_warning

if TYPE_CHECKING:
    from evaluator.runner.score import Score


def score(
    images: Annotated[
        str,
        typer.Argument(
            help="Images to judge: folder, .zip, .npz, .parquet, .tar, or 'a-{0000..0009}.tar'."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(help="Real images in any of these forms, a run, or moments (.npz)."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Names separated by commas, as `ls metrics` lists them; default:"
            " fid,kid,prdc,inception_score, and clip_score where captions are given."
        ),
    ] = None,
    captions: Annotated[
        str | None,
        typer.Option(
            help="Captions of the images: .jsonl or .csv with a column file_name, or .txt with"
            " one line for each image in the order of their names."
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="Weights of an extractor, inception=FILE. May be repeated."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a forward pass; default: 32.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Run directory; default: one in the cache, by content.")
    ] = None,
    overrides: SetOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take the first N of the images to judge.")
    ] = None,
    report: ReportOption = False,
    json: Annotated[
        str | None, typer.Option(help="Write the numbers to a file as well, or to '-'.")
    ] = None,
    allow_code: AllowCodeOption = False,
    retry_failed: RetryOption = False,
) -> None:
    """Score images against real images; the same command resumes it, and then answers at once."""
    from evaluator.runner.score import ScoreRequest, prepare_score

    names = None if metrics is None else tuple(name.strip() for name in metrics.split(","))
    request = ScoreRequest(
        images, against, names, captions, tuple(weights or ()), batch_size, limit,
        tuple(overrides or ()),
    )  # fmt: skip
    prepared = prepare_score(request, output=output, json=json, allow_code=allow_code)
    _run_score(prepared, allow_code=allow_code, retry_failed=retry_failed, report=report, json=json)


def _run_score(
    prepared: Score, *, allow_code: bool, retry_failed: bool, report: bool, json: str | None
) -> None:
    """Run what `score` asks for, and say what came out."""
    import os

    from evaluator.runner.score import numbers, write_numbers
    from evaluator.runner.session import run_session

    if os.environ.get("RANK", "0") == "0":
        for warning in prepared.warnings:
            print_warning(warning)
    outcome = run_session(
        prepared.config, prepared.path, allow_code=allow_code, relative_to=Path.cwd(),
        retry_failed=retry_failed,
    )  # fmt: skip
    if outcome is None:
        return  # another process of this launch speaks
    only_json = json == "-"
    print_outcome(outcome, err=only_json)
    if only_json:
        typer.echo(numbers(outcome.summary))
    elif json is not None:
        write_numbers(outcome.summary, Path(json))
    if report:
        from evaluator.report import write_report

        typer.echo(f"report: {write_report(outcome.run)}", err=only_json)
    leave(outcome.exit_status)
