"""`moments`: mean and covariance of a run's features, for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluator.cli.printing import plain
from evaluator.text import count_of


def moments(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    output: Annotated[Path, typer.Argument(help="The .npz file to write: mu, sigma, n.")],
    extractor: Annotated[
        str | None, typer.Option(help="Whose features; may be the only one's.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Of a reference instead of the run.")
    ] = None,
) -> None:
    """Write the moments of a run's features for other evaluators, or as a published reference."""
    from evaluator.aggregate.moments import export_moments
    from evaluator.store.rundir import RunDirectory

    written = export_moments(
        RunDirectory.open(run), output, extractor=extractor, reference=reference
    )
    typer.echo(
        plain(
            f"{output}: {written.extractor}, {count_of(written.n or 0, 'sample')}, "
            f"{count_of(len(written.mean), 'feature')}"
        )
    )
