"""`evaluator schedule …`: noise schedules as curves, one beside the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evaluator.cli.printing import terminal_width


def schedule(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Runs, configurations, pipeline folders, hub ids, package://…, or"
            " SchedulerName[:key=value,…] of"
            " diffusers, such as DDIMScheduler:beta_schedule=linear."
        ),
    ],
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Sampling steps; default: a run's or configuration's, or 50."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Set key=value of every scheduler; mu is its shift. May be repeated."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder of schedule.parquet and schedule.html; default: RUN/probes/schedule of one"
            " run alone, else schedule."
        ),
    ] = None,
) -> None:
    """Draw ᾱ, β, σ and log-SNR of noise schedules, and say what is suspicious about them."""
    from evaluator.errors import ConfigError, ProbeError
    from evaluator.probes.schedule_comparison import compare_schedules
    from evaluator.probes.scheduler_sources import parse_settings
    from evaluator.probing.named import require_place
    from evaluator.probing.outputs import ProbeFolder
    from evaluator.probing.schedules import (
        finish_schedule,
        num_steps_of,
        open_schedule,
        schedule_place,
    )
    from evaluator.report.schedules import schedules_text, write_schedules

    settings = parse_settings(overrides or [])
    folder = output if output is not None else schedule_place(models)
    require_place(folder)
    named = [open_schedule(model, settings) for model in models]
    num_steps = num_steps_of(models, 50) if steps is None else steps
    try:
        schedules = compare_schedules(named, num_steps=num_steps)
    except ProbeError as error:  # nothing was run: what was asked for does not exist
        option = "" if steps is None else f"--steps {steps}: "
        raise ConfigError(f"{option}{error}") from error
    filled = ProbeFolder(folder, verb="schedule")
    page = write_schedules(schedules, folder)
    said = schedules_text(schedules)
    finish_schedule(filled, models, num_steps=num_steps, settings=settings, lines=said.splitlines())
    typer.echo(schedules_text(schedules, width=terminal_width()))
    typer.echo(f"\npage: {page}")
