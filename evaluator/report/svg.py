"""Line charts as SVG: drawn once, shown in the page and written beside it.

Colours are classes, which the page's style sheet defines for light and dark. A file of its own
carries the same rules inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree import ElementTree as ET

from evaluator.report.text import number, plain

WIDTH, HEIGHT = 460, 290
NUM_COLOURS = 6
_LEFT, _RIGHT, _BOTTOM = 58, 16, 44
_LETTER = 6.3  # width of a letter at 11 pixels, about


@dataclass(frozen=True, slots=True)
class Series:
    """One line; `low` and `high` bound its band where they are given. Same length each."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with everything that is written on it."""

    slug: str
    """Names the file and the ids inside."""
    title: str
    description: str
    """What is shown, in words, for those who do not see it."""
    x_label: str
    y_label: str
    series: Sequence[Series]
    guide: float | None = None
    """A value that theory expects, drawn as a dashed line."""
    named: bool = False
    """Whether a line has its legend even alone: where a neighbouring chart has others."""


class Frame(NamedTuple):
    """Where a plot stands on its drawing, in pixels."""

    left: float
    right: float
    top: float
    bottom: float


class Scale:
    """Maps values onto pixels, and chooses round ticks."""

    def __init__(
        self, values: Sequence[float], start: float, stop: float, aim: int, *, tight: bool = False
    ) -> None:
        low, high = min(values), max(values)
        if high - low < 1e-9 * max(1.0, abs(high)):
            margin = 0.5 * abs(high) or 0.5
            low, high = low - margin, high + margin
        self.step = _round_step((high - low) / aim)
        self.low = low if tight else math.floor(low / self.step + 1e-6) * self.step
        self.high = high if tight else math.ceil(high / self.step - 1e-6) * self.step
        self._start, self._scale = start, (stop - start) / (self.high - self.low)

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return round(self._start + (value - self.low) * self._scale, 2)

    def ticks(self) -> list[float]:
        """Round values between the ends."""
        first = math.ceil(self.low / self.step - 1e-6)
        last = math.floor(self.high / self.step + 1e-6)
        return [round(i * self.step, 12) for i in range(first, last + 1)]

    def label(self, tick: float) -> str:
        """A tick with as many decimals as its neighbours need."""
        if max(abs(self.low), abs(self.high)) >= 1e5:
            return f"{tick:.1e}".replace("-", "−")
        places = max(0, 1 - math.floor(math.log10(self.step) + 1e-9))
        if math.isclose(round(self.step, places - 1), self.step):  # 2 and 5 need a place less
            places = max(0, places - 1)
        return f"{tick:.{places}f}".replace("-", "−")


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)


def draw(chart: Chart) -> ET.Element:
    """The chart as an `<svg>` element. Values that are not finite leave gaps."""
    series = [finite for line in chart.series[:NUM_COLOURS] if (finite := _finite(line)).x]
    svg = canvas(chart.slug, chart.title, chart.description, WIDTH, HEIGHT)
    if not series:
        text(svg, WIDTH / 2, HEIGHT / 2, "no finite value", anchor="middle")
        return svg
    top = _legend(svg, chart, series)
    ys = [v for line in series for v in (*line.y, *line.low, *line.high)]
    if chart.guide is not None:
        ys.append(chart.guide)
    x = Scale([v for line in series for v in line.x], _LEFT, WIDTH - _RIGHT, 6, tight=True)
    y = Scale(ys, HEIGHT - _BOTTOM, top, 5)
    axes(
        svg, Frame(_LEFT, WIDTH - _RIGHT, top, HEIGHT - _BOTTOM), x, y, chart.x_label, chart.y_label
    )
    if chart.guide is not None:
        line = {"x1": _LEFT, "x2": WIDTH - _RIGHT, "y1": y(chart.guide), "y2": y(chart.guide)}
        element(svg, "line", "guide", **line)
    for i, one in enumerate(series):
        _band(svg, one, i, x, y)
    for i, one in enumerate(series):
        _line(svg, one, i, x, y)
    return svg


def _finite(series: Series) -> Series:
    columns = [series.x, series.y, *((series.low, series.high) if series.low else ())]
    rows = [row for row in zip(*columns, strict=True) if all(map(math.isfinite, row))]
    kept = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in columns]
    return Series(series.name, *kept)


def _legend(svg: ET.Element, chart: Chart, series: Sequence[Series]) -> float:
    """Draw title and legend; returns where the plot may begin."""
    text(svg, 8, 18, chart.title, kind="title")
    left, top = 8.0, 38.0
    if len(series) < 2 and not chart.named:
        return 34
    for i, line in enumerate(series):
        name = plain(line.name, limit=40)
        width = 34 + _LETTER * len(name)
        if left + width > WIDTH and left > 8:
            left, top = 8.0, top + 16
        element(svg, "line", f"line s{i}", x1=left, x2=left + 20, y1=top - 4, y2=top - 4)
        text(svg, left + 25, top, name)
        left += width + 4
    return top + 14


def _band(svg: ET.Element, line: Series, i: int, x: Scale, y: Scale) -> None:
    if not line.low or len(line.x) < 2:
        return
    upper = [f"{x(a)},{y(b)}" for a, b in zip(line.x, line.high, strict=True)]
    lower = [f"{x(a)},{y(b)}" for a, b in zip(line.x, line.low, strict=True)]
    element(svg, "polygon", f"band s{i}", points=" ".join([*upper, *reversed(lower)]))


def _line(svg: ET.Element, line: Series, i: int, x: Scale, y: Scale) -> None:
    points = list(zip(line.x, line.y, strict=True))
    if len(points) > 1:
        path = " ".join(f"{x(a)},{y(b)}" for a, b in points)
        element(svg, "polyline", f"line s{i}", points=path)
    if len(points) > 120:  # a dot for each would only thicken the line
        return
    for j, (a, b) in enumerate(points):
        dot = element(svg, "circle", f"dot s{i}", cx=x(a), cy=y(b), r=2.2)
        band = f" ({number(line.low[j])} to {number(line.high[j])})" if line.low else ""
        says = f"{plain(line.name)}: {number(b)}{band} at {number(a)}"
        ET.SubElement(dot, "title").text = says


# -- the pieces that other drawings use -----------------------------------------------------------


def canvas(slug: str, title: str, description: str, width: float, height: float) -> ET.Element:
    """An empty drawing that names and describes itself to screen readers."""
    svg = ET.Element("svg", {
        "xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width:g} {height:g}",
        "class": "chart", "role": "img", "aria-labelledby": f"{slug}-title {slug}-desc",
        "font-family": "system-ui, sans-serif", "font-size": "11",
    })  # fmt: skip
    ET.SubElement(svg, "title", {"id": f"{slug}-title"}).text = plain(title)
    ET.SubElement(svg, "desc", {"id": f"{slug}-desc"}).text = plain(description)
    return svg


def axes(
    svg: ET.Element,
    frame: Frame,
    x: Scale,
    y: Scale,
    x_label: str,
    y_label: str,
    *,
    names: Sequence[str] = (),
    crossed: bool = False,
) -> None:
    """Ticks, the grid and what both axes say.

    `names` stand at the places 0, 1, … of x where it has no numbers; `crossed` draws the grid's
    upright lines, too.
    """
    left, right, top, bottom = frame
    for tick in y.ticks():
        element(svg, "line", "grid", x1=left, x2=right, y1=y(tick), y2=y(tick))
        text(svg, left - 6, y(tick) + 4, y.label(tick), anchor="end")
    room = max(3, int((right - left) / len(names) / _LETTER) - 1) if names else 0
    for i, name in enumerate(names):
        text(svg, x(i), bottom + 17, plain(name, limit=room), anchor="middle")
    for tick in () if names else x.ticks():
        begin = top if crossed else bottom
        element(svg, "line", "grid", x1=x(tick), x2=x(tick), y1=begin, y2=bottom + 4)
        text(svg, x(tick), bottom + 17, x.label(tick), anchor="middle")
    element(svg, "line", "axis", x1=left, x2=right, y1=bottom, y2=bottom)
    text(svg, (left + right) / 2, bottom + 36, x_label, anchor="middle")
    middle = (top + bottom) / 2
    label = text(svg, 13, middle, y_label, anchor="middle")
    label.set("transform", f"rotate(-90 13 {middle})")


def element(parent: ET.Element, tag: str, kind: str, **attributes: object) -> ET.Element:
    """A child with a class; numbers are written with two decimals at most."""
    texts = {
        name: f"{round(value, 2):g}" if isinstance(value, int | float) else str(value)
        for name, value in attributes.items()
    }
    return ET.SubElement(parent, tag, {"class": kind, **texts})


def text(
    parent: ET.Element, x: float, y: float, says: str, *, kind: str = "label", anchor: str = "start"
) -> ET.Element:
    """A line of text."""
    label = element(parent, "text", kind, x=x, y=y)
    label.set("text-anchor", anchor)
    label.text = plain(says)
    return label


def inline(svg: ET.Element) -> str:
    """The drawing as part of the page, whose style sheet colours it."""
    return ET.tostring(svg, encoding="unicode")


def standalone(svg: ET.Element, rules: str) -> str:
    """The drawing as a file of its own, with `rules` as its style sheet."""
    styled = deepcopy(svg)
    style = ET.Element("style")
    style.text = rules
    styled.insert(0, style)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(styled, encoding="unicode")}\n'
