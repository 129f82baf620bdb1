"""`evaluator probe …`: questions to one model that no run of many samples is needed for."""

from __future__ import annotations

import typer

from evaluator.cli.probe_spectra import jacobian

probe = typer.Typer(
    name="probe",
    help="Ask one model a question: what it is made of, what it knows, where it fails.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@probe.callback()
def _verbs() -> None:
    """Each verb below writes its tables and pictures into a folder, and prints what it found."""


probe.command()(jacobian)
