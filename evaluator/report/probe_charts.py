"""Charts of what the verbs of `evaluator probe` found, drawn from the tables in their folders."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evaluator.report.bars import Bar, draw_bars
from evaluator.report.curves import student_t
from evaluator.report.probe_folders import ProbeResult
from evaluator.report.svg import NUM_COLOURS, Chart, Series
from evaluator.report.text import plain

_BAND = "bands are 95 % intervals of the mean"
MAX_ROWS = 2_000_000
MAX_POINTS = 200
"""Points of a distribution's line."""

Floats = NDArray[np.float64]


class Mean(NamedTuple):
    """Mean and 95 % interval (Student's t) of the values at one place."""

    x: float
    mean: float
    low: float
    high: float


class FactTable(NamedTuple):
    """A small table; all text is fit to show."""

    caption: str
    titles: Sequence[str]
    rows: Sequence[Sequence[str]]


def probe_charts(found: ProbeResult, slug: str) -> list[Chart]:
    """The charts of one folder; none for a verb that is not known here, or an unusual table."""
    draw = DRAWN.get(found.verb)
    if draw is None or found.table is None or found.table.num_rows > MAX_ROWS:
        return []
    try:
        charts = list(draw(found.table))
    except (KeyError, TypeError, ValueError, pa.ArrowException):
        return []  # a table of another shape than the verb's
    return [_named(chart, f"{slug}-{chart.slug}") for chart in charts if chart.series]


def _named(chart: Chart, slug: str) -> Chart:
    return replace(chart, slug=slug)


def _column(table: pa.Table, name: str) -> Floats:
    values = table.column(name).to_pylist()
    return np.array([math.nan if value is None else float(value) for value in values], np.float64)


def _texts(table: pa.Table, name: str) -> list[str]:
    return [plain(value, limit=40) for value in table.column(name).to_pylist()]


def _means(x: Floats, y: Floats, *, least: float = -math.inf) -> list[Mean]:
    """Mean and interval of `y`, which is never below `least`, at each finite `x`, ascending."""
    found = []
    for at in np.unique(x[np.isfinite(x)]):
        values = y[(x == at) & np.isfinite(y)]
        if not len(values):
            continue
        mean, half = float(values.mean()), 0.0
        if len(values) > 1:
            half = student_t(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
        found.append(Mean(float(at), mean, max(mean - half, least), mean + half))
    return found


def _line(name: str, means: Sequence[Mean]) -> Series:
    columns = ([getattr(mean, f) for mean in means] for f in ("x", "mean", "low", "high"))
    return Series(name, *columns)


def _denoise(table: pa.Table) -> Iterable[Chart]:
    x = _column(table, "log_snr")
    lines = []
    for name, column in (("predicted noise", "noise_mse"), ("predicted image", "x0_mse")):
        means = _means(x, _column(table, column))
        if not all(mean.mean > 0 for mean in means):
            continue
        # An interval that reaches zero or below ends a hundredth of the mean above it.
        logs = [
            Mean(m.x, math.log10(m.mean), math.log10(max(m.low, m.mean / 100)), math.log10(m.high))
            for m in means
        ]
        lines.append(_line(name, logs))
    said = (
        "Mean squared error of the predicted noise and of the one-step image against log-SNR, in "
        f"powers of ten; lines are means over images, {_BAND}."
    )
    title = "Error of a denoising step"
    yield Chart("error", title, said, "log-SNR", "log₁₀ mean squared error", lines)


def _jacobian(table: pa.Table) -> Iterable[Chart]:
    x, rank = _column(table, "log_snr"), _column(table, "rank")
    most = max((len(values or ()) for values in table.column("singular_values").to_pylist()),
               default=0)  # fmt: skip
    beyond = int(np.isnan(rank).sum())
    rank[np.isnan(rank)] = most
    levels = np.unique(x[np.isfinite(x)])
    middle, low, high = (
        [float(of(rank[x == at])) for at in levels] for of in (np.median, np.min, np.max)
    )
    said = (
        "Numerical rank of the denoiser’s Jacobian against log-SNR; the line is the median over "
        "trajectories, the band spans the lowest to the highest."
    )
    if beyond:
        said += (
            f" {beyond} of {len(rank)} ranks are higher than the {most} singular values that "
            f"were computed, and drawn at {most}."
        )
    lines = [Series("median rank", levels.tolist(), middle, low, high)]
    yield Chart("rank", "Rank of the Jacobian", said, "log-SNR", "rank", lines)


def _interpolate(table: pa.Table) -> Iterable[Chart]:
    x, modes = _column(table, "weight"), np.array(_texts(table, "mode"))
    spaces = [n for n in table.column_names if n.startswith("distance_")]
    for i, name in enumerate(spaces[:NUM_COLOURS]):
        y, space = _column(table, name), plain(name.removeprefix("distance_"), limit=40)
        lines = [
            _line(mode, _means(x[modes == mode], y[modes == mode], least=0.0))
            for mode in sorted(set(modes.tolist()), reverse=True)
        ]
        said = (
            f"Distance of each image from the one before it in {space}, along the path between two "
            f"ends; lines are means over pairs, {_BAND}. A path without jumps is level."
        )
        title = f"Length of the steps of a path, in {space}"
        yield Chart(f"steps-{i}", title, said, "place on the path", "distance", lines)


def _directions(table: pa.Table) -> Iterable[Chart]:
    """One chart a pair of prompts; older tables have a single pair, without a column for it."""
    x, y = _column(table, "strength"), _column(table, "score")
    shuffled = np.array([bool(v) for v in table.column("shuffled").to_pylist()])
    several = "pair" in table.column_names
    pair = _column(table, "pair") if several else np.zeros(len(x))
    for i, at in enumerate(np.unique(pair)[:NUM_COLOURS]):
        here, named = pair == at, ""
        if {"from", "to"} <= set(table.column_names):
            first = int(np.flatnonzero(here)[0])
            ends = (plain(table.column(end)[first].as_py(), limit=120) for end in ("from", "to"))
            named = ", from “{}” to “{}”".format(*ends)
        lines = [_line("the direction", _means(x[here & ~shuffled], y[here & ~shuffled]))]
        if (here & shuffled).any():
            means = _means(x[here & shuffled], y[here & shuffled])
            lines.append(_line("its entries shuffled", means))
        said = (
            "Cosine of the images to the second prompt minus that to the first, against how far "
            f"the embedding was moved{named}; lines are means over seeds, {_BAND}. A direction "
            "that means nothing stays level, as its shuffled entries do."
        )
        title = f"Effect of direction {i + 1}" if several else "Effect of the direction"
        yield Chart(f"effect-{i}", title, said, "strength", "difference of cosines", lines, 0.0)


def _ood(table: pa.Table) -> Iterable[Chart]:
    sets = np.array(_texts(table, "set"))
    names = list(dict.fromkeys(sets.tolist()))
    scores = [n for n in table.column_names if f"{n}_p" in table.column_names]
    for i, score in enumerate(scores[:NUM_COLOURS]):
        values, shown = _column(table, score), plain(score, limit=40)
        lines = [_share(name, values[sets == name]) for name in names]
        said = (
            f"Share of each set’s images with at most this {shown} score; a line further right is "
            "of images further from the reference. Held-out images are of the reference itself."
        )
        kept = [line for line in lines if line.x]
        yield Chart(f"score-{i}", f"Distribution of the {shown} score", said, "score",
                    "share of images", kept)  # fmt: skip


def _roundtrip(table: pa.Table) -> Iterable[Chart]:
    line = _share("PSNR", _column(table, "psnr"))
    said = (
        "Share of images whose peak signal-to-noise ratio after encoding and decoding is at most "
        "this; further right is better."
    )
    title = "Error of the autoencoder, image by image"
    yield Chart("psnr", title, said, "PSNR in dB", "share of images", [line] if line.x else [])


def _schedule(table: pa.Table) -> Iterable[Chart]:
    """Log-SNR at the sampler's steps; the training grid is on the verb's own page."""
    table = table.filter(pc.equal(table.column("grid"), "sampling"))
    names, steps = np.array(_texts(table, "schedule")), _column(table, "step")
    log_snr = _column(table, "log_snr")
    lines = []
    for name in dict.fromkeys(names.tolist()):
        here = np.flatnonzero(names == name)
        kept = here[np.unique(np.linspace(0, len(here) - 1, MAX_POINTS).round().astype(int))]
        lines.append(Series(name, steps[kept].tolist(), log_snr[kept].tolist()))
    said = (
        "Log-SNR at each step of the sampler, from noise to image. Where it is infinite it is not "
        "drawn."
    )
    for first in range(0, len(lines), NUM_COLOURS):
        yield Chart(f"log-snr-{first // NUM_COLOURS}", "Noise schedule", said, "step", "log-SNR",
                    lines[first : first + NUM_COLOURS], named=len(lines) > NUM_COLOURS)  # fmt: skip


def _share(name: str, values: Floats) -> Series:
    """The empirical distribution function, at evenly spaced ranks."""
    values = np.sort(values[np.isfinite(values)])
    if not len(values):
        return Series(name, [], [])
    ranks = np.unique(np.linspace(0, len(values) - 1, MAX_POINTS).round().astype(int))
    return Series(name, values[ranks].tolist(), ((ranks + 1) / len(values)).tolist())


DRAWN: Mapping[str, Callable[[pa.Table], Iterable[Chart]]] = {
    "denoise": _denoise,
    "jacobian": _jacobian,
    "interpolate": _interpolate,
    "directions": _directions,
    "ood": _ood,
    "roundtrip": _roundtrip,
    "schedule": _schedule,
}
"""Verbs whose table `<verb>.parquet` is drawn."""


def components(found: ProbeResult) -> FactTable | None:
    """The parts of a pipeline, from `probe anatomy`; None for other verbs."""
    parts = found.result.get("components")
    if found.verb != "anatomy" or not isinstance(parts, list):
        return None
    rows = [_component(part) for part in parts[:64] if isinstance(part, Mapping)]
    caption = plain(found.result.get("pipeline") or "", limit=80)
    return FactTable(caption, ("Component", "Class", "Parameters", "Type"), rows)


def component_bars(found: ProbeResult, slug: str) -> ET.Element | None:
    """Where the parameters of a pipeline lie, from `probe anatomy`; None where none is known."""
    parts = found.result.get("components")
    if found.verb != "anatomy" or not isinstance(parts, list):
        return None
    counts = {}
    for part in parts[:64]:
        count = part.get("num_parameters") if isinstance(part, Mapping) else None
        if isinstance(count, int) and not isinstance(count, bool) and count > 0:
            counts[plain(part.get("name") or "", limit=32)] = count
    if not counts:
        return None
    whole = sum(counts.values())
    bars = [Bar(name, n, f"{_short(n)} ({100 * n / whole:.0f} %)") for name, n in counts.items()]
    said = f"Where the {whole:,} parameters lie, component by component."
    return draw_bars(f"{slug}-parameters", "Parameters by component", said, bars)


def _short(count: int) -> str:
    """`3.47 M`: three digits, so that the largest model's fits beside its bar."""
    for size, unit in ((10**9, " B"), (10**6, " M"), (10**3, " k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _component(part: Mapping[str, Any]) -> list[str]:
    count, dtypes = part.get("num_parameters"), part.get("dtypes")
    return [
        plain(part.get("name") or "", limit=60),
        plain(part.get("kind") or "", limit=60),
        f"{count:,}" if isinstance(count, int) else "—",
        plain(", ".join(map(str, dtypes)), limit=60)
        if isinstance(dtypes, list) and dtypes
        else "—",
    ]
