"""`evaluator export`: runs for spreadsheets, the hub and experiment trackers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evaluator.cli.printing import leave, plain, print_warning

if TYPE_CHECKING:
    from evaluator.export.write import Exported

RunsArgument = Annotated[list[Path], typer.Argument(help="Run directories, or folders with runs.")]
TargetOption = Annotated[
    str,
    typer.Option(
        help="csv, json, parquet, eval-results, model-card, wandb, tensorboard or trackio."
    ),
]
AllowIncompleteOption = Annotated[
    bool, typer.Option("--allow-incomplete", help="Publish numbers of an incomplete run.")
]
OverwriteOption = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace files of others or of another run, and changed ones."
    ),
]


def export(
    runs: RunsArgument,
    to: TargetOption,
    output: Annotated[
        Path | None, typer.Option(help="Folder; default: export-TARGET in the current folder.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Id on the hub of the data set that was evaluated on (org/name)."),
    ] = None,
    dataset_revision: Annotated[
        str | None, typer.Option(help="Git revision of that data set.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Names of the numbers to publish, separated by commas.")
    ] = None,
    source_url: Annotated[
        str | None, typer.Option(help="Where the evaluation can be read about.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model on its card.")] = None,
    project: Annotated[
        str | None, typer.Option(help="Project of wandb or trackio; default: evaluator.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=0, help="Kept images of a run for trackers; default: 8.")
    ] = None,
    allow_incomplete: AllowIncompleteOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Hand runs on to other tools; nothing is sent anywhere."""
    from evaluator.export.options import ExportOptions
    from evaluator.export.write import export_runs
    from evaluator.runs import find_runs, left_out

    options = ExportOptions(
        dataset=dataset,
        dataset_revision=dataset_revision,
        metrics=None if metrics is None else tuple(m.strip() for m in metrics.split(",")),
        source_url=source_url,
        model=model,
        allow_incomplete=allow_incomplete,
        project=project,
        images=images,
        overwrite=overwrite,
    )
    folder = output if output is not None else Path(f"export-{to}")
    exported = export_runs(find_runs(runs), to, folder, options)
    for line in left_out(runs):
        print_warning(line)
    _tell(exported)
    leave(exported.exit_status)


def _tell(exported: Exported) -> None:
    """What was written and what to do with it; on stderr what a reader should know."""
    for path in exported.files:
        typer.echo(plain(str(path)))
    if exported.hint:
        typer.echo(plain(exported.hint))
    for line in exported.warnings:
        typer.echo(plain(f"warning: {line}"), err=True)
    for line in exported.left_out:
        typer.echo(plain(f"left out: {line}"), err=True)
