"""Values and intervals of many runs in one column of a leaderboard, as a drawing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree as ET

from evaluator.report.svg import canvas, element, text
from evaluator.report.text import number, plain

MAX_BARS = 40
"""Rows of one drawing; the table has them all."""

_WIDTH, _ROW, _TOP, _LEFT, _RIGHT = 460, 20, 34, 150, 70


class Bar(NamedTuple):
    """One row's value; `low` and `high` are the value where it has no interval."""

    name: str
    value: float
    low: float
    high: float
    says: str
    """What stands at the right: the range of ranks, or nothing."""
    cited: bool


def draw_bars(slug: str, title: str, description: str, bars: Sequence[Bar]) -> ET.Element:
    """Dots with their intervals, the first row on top; cited values are hollow."""
    bars = [bar for bar in bars if math.isfinite(bar.value)][:MAX_BARS]
    bottom = _TOP + _ROW * len(bars) + 4
    svg = canvas(slug, title, description, _WIDTH, bottom + 24)
    text(svg, 8, 18, title, kind="title")
    if not bars:
        return svg
    low, high = _extent(bars)

    def place(value: float) -> float:
        clipped = min(max(value, low), high)
        return _LEFT + (clipped - low) / (high - low) * (_WIDTH - _RIGHT - _LEFT)

    for part in (0.0, 0.5, 1.0):
        tick = low + part * (high - low)
        element(svg, "line", "grid", x1=place(tick), x2=place(tick), y1=_TOP - 4, y2=bottom)
        text(svg, place(tick), bottom + 15, number(tick), anchor="middle")
    for i, bar in enumerate(bars):
        _bar(svg, bar, _TOP + _ROW * (i + 0.5), place)
    return svg


def _extent(bars: Sequence[Bar]) -> tuple[float, float]:
    """What the axis spans: every value and every finite end, with a margin."""
    ends = [v for bar in bars for v in (bar.value, bar.low, bar.high) if math.isfinite(v)]
    low, high = min(ends), max(ends)
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin


def _bar(svg: ET.Element, bar: Bar, y: float, place: Callable[[float], float]) -> None:
    text(svg, _LEFT - 10, y + 4, plain(bar.name, limit=22), anchor="end")
    if bar.high > bar.low:
        left, right = place(bar.low), place(bar.high)
        element(svg, "line", "line s0", x1=left, x2=right, y1=y, y2=y)
        for x in (left, right):
            element(svg, "line", "line s0", x1=x, x2=x, y1=y - 4, y2=y + 4)
    kind = "hollow" if bar.cited else "dot s0"
    dot = element(svg, "circle", kind, cx=place(bar.value), cy=y, r=4)
    interval = f" ({number(bar.low)} to {number(bar.high)})" if bar.high > bar.low else ""
    source = ", cited" if bar.cited else ""
    ET.SubElement(dot, "title").text = f"{plain(bar.name)}: {number(bar.value)}{interval}{source}"
    text(svg, _WIDTH - _RIGHT + 10, y + 4, bar.says)
