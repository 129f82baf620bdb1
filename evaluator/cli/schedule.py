"""`evaluator schedule …`: noise schedules as curves, one beside the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schedule(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Pipeline folders, hub ids, package://…, or SchedulerName[:key=value,…] of"
            " diffusers, such as DDIMScheduler:beta_schedule=linear."
        ),
    ],
    steps: Annotated[int, typer.Option(min=1, help="Sampling steps.")] = 50,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Set key=value of every scheduler; mu is its shift. May be repeated."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder of schedule.parquet and schedule.html.")
    ] = Path("schedule"),
) -> None:
    """Draw ᾱ, β, σ and log-SNR of noise schedules, and say what is suspicious about them."""
    from evaluator.probes.schedule_comparison import compare_schedules
    from evaluator.probes.scheduler_sources import open_scheduler, parse_settings
    from evaluator.report.schedules import schedules_text, write_schedules

    settings = parse_settings(overrides or [])
    named = [open_scheduler(model, settings) for model in models]
    schedules = compare_schedules(named, num_steps=steps)
    page = write_schedules(schedules, output)
    typer.echo(schedules_text(schedules))
    typer.echo(f"\npage: {page}")
