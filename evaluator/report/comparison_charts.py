"""Drawings of differences: an interval about zero, and how the samples' differences spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from evaluator.comparison.records import Difference, Verdict
from evaluator.report.svg import canvas, element, text
from evaluator.report.text import number, plain

Vector = NDArray[np.float64]
_WIDTH, _HEIGHT, _EDGE = 180, 26, 6
_COLOUR = {"better": 2, "worse": 1}
BINS = 31
"""Bins of a histogram, at most; zero is always between two of them."""


def signed(value: float | None) -> str:
    """A difference for people: always with its sign."""
    if value is None or math.isnan(value):
        return "—"
    return f"+{number(value)}" if value > 0 else number(value)


def draw_interval(slug: str, difference: Difference) -> ET.Element | None:
    """A difference and its interval about zero, to a scale of its own; None without a number."""
    value, span = difference.difference, difference.interval
    if value is None or not math.isfinite(value):
        return None
    low, high = (span.low, span.high) if span else (value, value)
    low, high = (each if math.isfinite(each) else value for each in (low, high))
    reach = 1.15 * max(map(abs, (low, high, value))) or 1.0
    said = f"Difference {signed(value)}"
    if span:
        said += f", {100 * span.level:g} % interval from {signed(span.low)} to {signed(span.high)}"
    svg = canvas(slug, plain(difference.title), f"{said}; zero is in the middle.", _WIDTH, _HEIGHT)
    svg.set("class", "chart mini")
    colour = f"s{_COLOUR.get(difference.verdict, 0)}"

    def place(at: float) -> float:
        return _WIDTH / 2 + at / reach * (_WIDTH / 2 - _EDGE)

    middle = _HEIGHT / 2
    element(svg, "line", "grid", x1=_EDGE, x2=_WIDTH - _EDGE, y1=middle, y2=middle)
    element(svg, "line", "axis", x1=_WIDTH / 2, x2=_WIDTH / 2, y1=2, y2=_HEIGHT - 2)
    if span:
        element(svg, "line", f"line {colour}", x1=place(low), x2=place(high), y1=middle, y2=middle)
        for edge in (place(low), place(high)):
            ends = {"y1": middle - 5, "y2": middle + 5}
            element(svg, "line", f"line {colour}", x1=edge, x2=edge, **ends)
    element(svg, "circle", f"dot {colour}", cx=place(value), cy=middle, r=4)
    return svg


def draw_histogram(
    slug: str,
    title: str,
    differences: Sequence[float],
    *,
    letters: str,
    higher_is_better: bool | None,
) -> ET.Element | None:
    """How the differences of single samples spread; None without a finite one.

    `letters` says what is subtracted from what, as `B − A`.
    """
    values = np.asarray([v for v in differences if math.isfinite(v)], dtype=np.float64)
    if not values.size:
        return None
    edges, counts = _bins(values)
    up, down = ("better", "worse") if higher_is_better is not False else ("worse", "better")
    if higher_is_better is None:
        up, down = "higher", "lower"
    shares = [100 * float(np.mean(part)) for part in (values > 0, values == 0, values < 0)]
    said = (
        f"Median {signed(float(np.median(values)))}; {shares[0]:.0f} % of the pairs are {up}, "
        f"{shares[1]:.0f} % the same, {shares[2]:.0f} % {down}."
    )
    svg = canvas(slug, title, said, 460, 200)
    text(svg, 8, 18, title, kind="title")
    left, right, top, bottom = 20.0, 440.0, 36.0, 158.0
    width = (right - left) / len(counts)
    for i, count in enumerate(counts):
        height = (bottom - top) * count / counts.max()
        rising = edges[i] >= 0
        verdict: Verdict = "better" if rising == (higher_is_better is not False) else "worse"
        colour = 0 if higher_is_better is None else _COLOUR[verdict]
        place = {"x": left + i * width, "y": bottom - height, "width": width - 1}
        bar = element(svg, "rect", f"bar s{colour}", height=height, **place)
        says = f"{signed(float(edges[i]))} to {signed(float(edges[i + 1]))}: {count:,} pairs"
        ET.SubElement(bar, "title").text = says
    element(svg, "line", "axis", x1=left, x2=right, y1=bottom, y2=bottom)
    _label_ends(svg, edges, left, right, bottom)
    text(svg, (left + right) / 2, 194, f"difference of a pair, {letters}", anchor="middle")
    return svg


def _label_ends(svg: ET.Element, edges: Vector, left: float, right: float, bottom: float) -> None:
    zero = left + (right - left) * float(-edges[0] / (edges[-1] - edges[0]))
    element(svg, "line", "guide", x1=zero, x2=zero, y1=30, y2=bottom + 5)
    text(svg, zero, bottom + 18, "0", anchor="middle")
    for x, edge, anchor in ((left, edges[0], "start"), (right, edges[-1], "end")):
        if abs(x - zero) > 60:
            text(svg, x, bottom + 18, signed(float(edge)), anchor=anchor)


def _bins(values: Vector) -> tuple[Vector, NDArray[np.intp]]:
    """Edges of equal bins, one of them zero, and the counts; zeros count above their edge."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    width = (high - low) / (BINS - 1) or 1.0
    first, last = math.floor(low / width), max(math.ceil(high / width), 1)
    edges: Vector = width * np.arange(first, last + 1, dtype=np.float64)
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), bins=edges)
    return edges, counts
