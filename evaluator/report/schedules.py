"""Noise schedules side by side: a table for the terminal, a Parquet table, and a page of curves."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from markupsafe import Markup
from numpy.typing import NDArray

from evaluator.durable import explained, flush_to_disk, write_atomically
from evaluator.probes.schedule_comparison import (
    DescribedSchedule,
    reverse_variance,
    schedules_table,
)
from evaluator.report.fitted import fitted
from evaluator.report.frame import Drawing, render_page
from evaluator.report.svg import NUM_COLOURS, Chart, Series, draw, inline
from evaluator.report.text import number, plain
from evaluator.store.schemas import write_table

PAGE, TABLE = "schedule.html", "schedule.parquet"
MAX_POINTS = 250
"""Points of a drawn curve; of a longer grid, evenly spaced ones with both ends."""

TITLES = ("schedule", "scheduler", "family", "predicts", "trained log-SNR", "sampled log-SNR",
          "timesteps", "initial σ")  # fmt: skip

_GRIDS = {
    "Training": "The grid that the model was trained on, from the image (0) to the noise (1).",
    "Sampling": "The steps of the sampler: each is one move from noise towards the image.",
}

Values = NDArray[np.float64]


class Curve(NamedTuple):
    """What is drawn of a grid."""

    slug: str
    title: str
    label: str
    meaning: str
    values: Callable[[pa.Table], Values]
    only: str | None = None
    """The grid that it is drawn for; None for both."""


def _column(name: str) -> Callable[[pa.Table], Values]:
    return lambda table: table.column(name).to_numpy()


def _log_ratio(table: pa.Table) -> Values:
    """log₁₀ of b/a; without signal or noise, infinite."""
    alpha, sigma = table.column("alpha").to_numpy(), table.column("sigma").to_numpy()
    with np.errstate(divide="ignore"):
        ratio: Values = np.log10(sigma) - np.log10(alpha)
    return ratio


def _log_beta(table: pa.Table) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm: Values = np.log10(table.column("beta").to_numpy())
    return logarithm


_CURVES = (
    Curve("log-snr", "Log-SNR", "log-SNR", "2 ln(a/b)", _column("log_snr")),
    Curve("alpha-cumprod", "ᾱ", "ᾱ", "the share of signal in the variance, a²/(a² + b²)",
          _column("alpha_cumprod")),
    Curve("beta", "β", "β", "the noise that one step adds, 1 − ᾱ/ᾱ of the cleaner neighbour",
          _column("beta"), "Sampling"),
    Curve("beta", "β", "log₁₀ β", "the noise that one step adds, 1 − ᾱ/ᾱ of the step before, in"
          " powers of ten", _log_beta, "Training"),
    Curve("sigma", "σ", "log₁₀ σ", "noise relative to the signal, σ = b/a, in powers of ten",
          _log_ratio),
    Curve("timestep", "Timesteps", "timestep", "what the model is told at each step",
          _column("timestep"), "Sampling"),
)  # fmt: skip


def write_schedules(schedules: Sequence[DescribedSchedule], folder: Path) -> Path:
    """Write `schedule.parquet` and `schedule.html` into `folder`; returns the page's path."""
    with explained("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{TABLE}.{os.getpid()}.aside"
        try:
            write_table(schedules_table(schedules), aside, kind="schedules")
            flush_to_disk(aside)
            os.replace(aside, folder / TABLE)
        finally:
            aside.unlink(missing_ok=True)
    page = folder / PAGE
    write_atomically(page, _render(schedules).encode())
    return page


def schedules_text(schedules: Sequence[DescribedSchedule], *, width: int | None = None) -> str:
    """The facts as plain text: one aligned line a schedule, its warnings beneath."""
    rows = [facts(schedule) for schedule in schedules]
    beneath = [[plain(line) for line in schedule.warnings] for schedule in schedules]
    return fitted(
        TITLES,
        rows,
        beneath,
        width=width,
        rigid=range(3, len(TITLES)),
        elsewhere="the page has them",
    )


def facts(schedule: DescribedSchedule) -> tuple[str, ...]:
    """One schedule in the columns of `TITLES`."""
    times = schedule.sampling.column("timestep").to_numpy()
    predicts = schedule.prediction
    if schedule.variance and "learned" in schedule.variance:
        predicts += f", {schedule.variance}"
    return (
        plain(schedule.name, limit=60),
        schedule.scheduler.removesuffix("Scheduler"),
        schedule.family,
        plain(predicts, limit=40),
        "—" if schedule.training is None else _span(schedule.training),
        _span(schedule.sampling),
        f"{times[0]:.5g} … {times[-1]:.5g}",
        number(schedule.init_noise_sigma),
    )


def _span(table: pa.Table) -> str:
    log_snr = table.column("log_snr").to_numpy()
    return f"{number(log_snr.min(), places=2)} … {number(log_snr.max(), places=2)}"


def _render(schedules: Sequence[DescribedSchedule]) -> str:
    grids = []
    for grid, said in _GRIDS.items():
        charts = [draw(chart) for chart in _charts(schedules, grid)]
        drawn = [Drawing(Markup(inline(svg)), "", svg.findtext("desc") or "") for svg in charts]  # noqa: S704
        grids.append((grid, said, drawn))
    steps = max(schedule.sampling.num_rows for schedule in schedules)
    return render_page(
        "schedules.html.j2",
        title="Noise schedules",
        subtitle=f"{steps} sampling steps",
        titles=[title.capitalize() if title.islower() else title for title in TITLES],
        rows=[
            {"cells": facts(schedule), "warnings": [plain(line) for line in schedule.warnings]}
            for schedule in schedules
        ],
        table=TABLE,
        grids=grids,
    )


def short_names(names: Sequence[str]) -> list[str]:
    """Names for legends: `DDPM sigmoid`, the last part of a path; in full where two would agree."""
    short = [_short_name(name) for name in names]
    return [each if short.count(each) == 1 else names[i] for i, each in enumerate(short)]


def _short_name(name: str) -> str:
    scheduler, _, settings = name.partition(":")
    if scheduler.endswith("Scheduler"):
        spoken = settings.replace("beta_schedule=", "").replace("variance_type=", "")
        return f"{scheduler.removesuffix('Scheduler')} {spoken.replace(',', ', ')}".strip()
    return name.rstrip("/").rpartition("/")[2]


def _charts(schedules: Sequence[DescribedSchedule], grid: str) -> list[Chart]:
    """Every curve of one grid, for as many schedules at a time as there are colours."""
    tables = [(s, s.training if grid == "Training" else s.sampling) for s in schedules]
    names = short_names([schedule.name for schedule in schedules])
    known = [(n, *each) for n, each in zip(names, tables, strict=True) if each[1] is not None]
    charts = []
    for first in range(0, len(known), NUM_COLOURS):
        group = known[first : first + NUM_COLOURS]
        end = f"-{first // NUM_COLOURS + 1}" if len(known) > NUM_COLOURS else ""
        for curve in _CURVES:
            if curve.only not in (None, grid):
                continue
            lines = [_series(name, grid, table, curve.values(table)) for name, _, table in group]
            charts.append(_chart(grid, curve, lines, end))
        if grid == "Training" and (
            bands := [b for name, s, _ in group if (b := _variance(name, s))]
        ):
            charts.append(_variance_chart(bands, end))
    return charts


def _chart(grid: str, curve: Curve, lines: Sequence[Series], end: str) -> Chart:
    against = "t / T" if grid == "Training" else "step"
    said = f"{curve.title} against {against}: {curve.meaning}."
    if any(not np.isfinite(line.y).all() for line in lines):
        said += " Where it is infinite it is not drawn."
    slug = f"{grid.lower()}-{curve.slug}{end}"
    return Chart(slug, curve.title, said, against, curve.label, lines, named=True)


def _series(name: str, grid: str, table: pa.Table, values: Values) -> Series:
    rows = table.num_rows
    # 0 is the cleanest step of the grid, whatever number the family gives it.
    x = np.arange(rows) / max(1, rows - 1) if grid == "Training" else np.arange(rows, dtype=float)
    kept = np.unique(np.linspace(0, rows - 1, min(rows, MAX_POINTS)).round().astype(int))
    return Series(name, x[kept].tolist(), values[kept].tolist())


def _variance(name: str, schedule: DescribedSchedule) -> Series | None:
    """From β̃ to β, in powers of ten; the line is the variance that the settings fix."""
    small = reverse_variance(schedule)
    if small is None or schedule.training is None:
        return None
    large = schedule.training.column("beta").to_numpy()
    with np.errstate(divide="ignore"):
        low, high = np.log10(small), np.log10(large)
    variance = schedule.variance or ""
    line = high if variance.startswith("fixed_large") else low
    rows = len(large)
    kept = np.unique(np.linspace(1, rows - 1, min(rows, MAX_POINTS)).round().astype(int))
    band = (low[kept].tolist(), high[kept].tolist()) if "learned" in variance else ((), ())
    x = (kept / max(1, rows - 1)).tolist()
    return Series(name, x, line[kept].tolist(), *band)


def _variance_chart(lines: Sequence[Series], end: str) -> Chart:
    said = (
        "Variance of the reverse step against t / T, in powers of ten: as the settings fix it, "
        "or, where the model learned it, the band from β̃ to β that it chooses from."
    )
    slug = f"training-variance{end}"
    return Chart(slug, "Reverse variance", said, "t / T", "log₁₀ variance", lines, named=True)
