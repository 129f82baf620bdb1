"""From curves to charts: titles, axes, and the words that say what is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa

from evaluator.report.bars import Bar, draw_bars
from evaluator.report.census import Timings
from evaluator.report.curves import AttentionCurves, LatentCurves, Point
from evaluator.report.svg import NUM_COLOURS, Chart, Series
from evaluator.report.text import number, plain

_LOG_SNR = "log-SNR (noise on the left, image on the right)"
_BAND_OF_MEANS = "Lines are means over prompts, bands their 95 % confidence intervals."
_BAND_OF_VALUES = "The line is the median over samples, the band spans the 10th to 90th percentile."

_ATTENTION_TITLES = {
    "sharpness": ("Sharpness of content words", "1 − normalised entropy"),
    "top10_share": ("Share of content words in their top tenth", "share of mass"),
    "mass": ("Attention mass of content words", "mean probability"),
}
_LATENT_TITLES = {
    "std": ("Standard deviation of latents", "std", None),
    "eps_std": ("Standard deviation of predicted noise", "std of ε", 1.0),
    "eps_kurtosis": ("Excess kurtosis of predicted noise", "kurtosis of ε", 0.0),
    "eps_normality": ("Predicted noise against a normal one", "Lilliefors’ statistic", None),
    "x0_std": ("Standard deviation of the predicted image", "std of x0", None),
    "norm_ratio": ("Norm of latents, relative to expected", "ratio", 1.0),
    "cosine_previous": ("Cosine to the previous step", "cosine", None),
    "guidance_norm": ("Strength of guidance", "‖c − u‖ / √d", None),
}
_SCHEDULE_TITLES = {
    "log_snr": ("Log-SNR of the schedule", "log-SNR", "signal-to-noise ratio as 2 ln(α / σ)"),
    "alpha_cumprod": ("ᾱ of the schedule", "ᾱ", "share of signal in the variance"),
    "beta": ("β of the schedule", "β", "noise that one step adds, 1 − ᾱ/ᾱ of the next step"),
    "alpha": ("Signal level α of the schedule", "α", "scale of the image"),
    "sigma": ("Noise level σ of the schedule", "σ", "scale of the noise"),
}


def attention_charts(curves: AttentionCurves) -> list[Chart]:
    """Content words by layer group, and content words against function words."""
    charts = []
    for measure, (title, label) in _ATTENTION_TITLES.items():
        names = _spread_out(curves.names(measure))
        lines = [(name, curves.curve(measure, name)) for name in names]
        charts += _means(f"attention-{measure.replace('_', '-')}", title, label, lines)
    names = sorted(curves.names("sharpness", kinds=True))
    if len(names) > 1:
        lines = [(name, curves.curve("sharpness", name, kinds=True)) for name in names]
        title = "Sharpness of content words against function words"
        label = _ATTENTION_TITLES["sharpness"][1]
        charts += _means("attention-words", title, label, lines)
    return charts


def _spread_out(names: Sequence[str]) -> list[str]:
    """At most as many names as there are colours, evenly spaced."""
    chosen = np.unique(np.linspace(0, len(names) - 1, NUM_COLOURS).round().astype(int))
    return [names[i] for i in chosen] if names else []


def _means(
    slug: str, title: str, label: str, lines: Sequence[tuple[str, Sequence[Point]]]
) -> list[Chart]:
    """A chart against log-SNR, or against the step where no log-SNR is known; none if empty."""
    points = [point for _, curve in lines for point in curve]
    if not points:
        return []
    known = len({point.log_snr for point in points if math.isfinite(point.log_snr)}) > 1
    series = []
    for name, curve in lines:
        x = [point.log_snr if known else float(point.step) for point in curve]
        half = [point.moments.half_width for point in curve]
        mean = [point.moments.mean for point in curve]
        low = [m - h for m, h in zip(mean, half, strict=True)]
        high = [m + h for m, h in zip(mean, half, strict=True)]
        series.append(Series(plain(name), x, mean, low, high))
    against = _LOG_SNR if known else "step"
    said = f"{title} against {'log-SNR' if known else 'step'}, one line for each of "
    names = ", ".join(line.name for line in series)
    return [Chart(slug, title, f"{said}{names}. {_BAND_OF_MEANS}", against, label, series)]


def latent_charts(curves: LatentCurves) -> list[Chart]:
    """One chart for each statistic that has values."""
    charts = []
    for measure, (title, label, guide) in _LATENT_TITLES.items():
        curve = curves.curve(measure)
        if not curve.steps:
            continue
        steps = [float(step) for step in curve.steps]
        series = Series(title, steps, curve.median, curve.low, curve.high)
        said = f"{title} against the step. {_BAND_OF_VALUES}"
        if guide is not None:
            said += f" The dashed line is the expected value {guide:g}."
        slug = f"latents-{measure.replace('_', '-')}"
        charts.append(Chart(slug, title, said, "step", label, [series], guide))
    return charts


def schedule_charts(schedule: pa.Table) -> list[Chart]:
    """Log-SNR, signal and noise level against the step."""
    charts = []
    for name, (title, label, meaning) in _SCHEDULE_TITLES.items():
        if {"step", name} <= set(schedule.column_names) and schedule.num_rows:
            x, y = _floats(schedule, "step"), _floats(schedule, name)
            said = f"{title} against the step: {meaning}."
            if not all(map(math.isfinite, y)):
                said += " Steps where it is infinite are not drawn."
            slug = f"schedule-{name.replace('_', '-')}"
            charts.append(Chart(slug, title, said, "step", label, [Series(title, x, y)]))
    return charts


def _floats(table: pa.Table, name: str) -> list[float]:
    return [math.nan if v is None else float(v) for v in table.column(name).to_pylist()]


def timing_bars(timings: Timings) -> ET.Element:
    """Seconds by stage as horizontal bars, the longest first."""
    stages = sorted(timings.by_stage.items(), key=lambda item: -item[1].seconds)
    said = "; ".join(f"{stage} {number(work.seconds)} s" for stage, work in stages)

    def bar(stage: str, seconds: float) -> Bar:
        share = 100 * seconds / (timings.total or 1.0)
        return Bar(stage, seconds, f"{number(seconds, places=1)} ({share:.0f} %)")

    bars = [bar(stage, work.seconds) for stage, work in stages]
    return draw_bars("timing-bars", "Seconds by stage", f"All workers together: {said}.", bars)
