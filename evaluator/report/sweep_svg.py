"""Points with bars in two directions, joined in an order, and some of them ringed: as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from xml.etree import ElementTree as ET

from evaluator.report.svg import Frame, Scale, axes, canvas, element, text
from evaluator.report.text import plain

WIDTH, HEIGHT = 460, 340
_LEFT, _RIGHT, _BOTTOM = 72, 20, 46
_LETTER = 6.3
MOST_LABELS = 24
"""More marks than this are not written on; pointing at one still says what it is."""

Bar = tuple[float, float] | None


class Mark(NamedTuple):
    """One point of the drawing."""

    x: float
    y: float
    x_bar: Bar
    y_bar: Bar
    label: str
    """A few letters beside it."""
    says: str
    """All of it, for those who point at it."""
    ringed: bool = False


class Trail(NamedTuple):
    """Marks that belong together, in order."""

    name: str
    marks: Sequence[Mark]


@dataclass(frozen=True, slots=True)
class Scatter:
    """A drawing with everything that is written on it."""

    slug: str
    title: str
    description: str
    x_label: str
    y_label: str
    trails: Sequence[Trail]
    joined: bool = True
    ticks: Sequence[str] = ()
    """Names of the places 0, 1, … of x, where x has no numbers."""
    ring: str = ""
    """What a ring means; empty where there is none."""


def draw_scatter(scatter: Scatter) -> ET.Element:
    """The drawing as an `<svg>` element; marks without a finite place are left out."""
    trails = [Trail(trail.name, list(_finite(trail.marks))) for trail in scatter.trails]
    scatter = replace(scatter, trails=[trail for trail in trails if trail.marks])
    svg = canvas(scatter.slug, scatter.title, scatter.description, WIDTH, HEIGHT)
    text(svg, 8, 18, scatter.title, kind="title")
    if not scatter.trails:
        text(svg, WIDTH / 2, HEIGHT / 2, "no finite value", anchor="middle")
        return svg
    top = _legend(svg, scatter)
    marks = [mark for trail in scatter.trails for mark in trail.marks]
    ys = [v for mark in marks for v in (mark.y, *(mark.y_bar or ()))]
    xs = [v for mark in marks for v in (mark.x, *(mark.x_bar or ()))]
    if scatter.ticks:
        xs = [-0.5, len(scatter.ticks) - 0.5]
    x = Scale(xs, _LEFT, WIDTH - _RIGHT, 6, tight=bool(scatter.ticks))
    y = Scale(ys, HEIGHT - _BOTTOM, top, 5)
    frame = Frame(_LEFT, WIDTH - _RIGHT, top, HEIGHT - _BOTTOM)
    labels = scatter.x_label, scatter.y_label
    axes(svg, frame, x, y, *labels, names=scatter.ticks, crossed=True)
    for i, trail in enumerate(scatter.trails):
        _trail(svg, scatter, trail, i, x, y)
    _labels(svg, marks, x, y, top)
    return svg


def _finite(marks: Sequence[Mark]) -> Iterator[Mark]:
    for mark in marks:
        if math.isfinite(mark.x) and math.isfinite(mark.y):
            bars = [b if b and all(map(math.isfinite, b)) else None for b in mark[2:4]]
            yield mark._replace(x_bar=bars[0], y_bar=bars[1])


def _legend(svg: ET.Element, scatter: Scatter) -> float:
    """Draw the legend; returns where the plot may begin."""
    left, top, drawn = 8.0, 38.0, False
    for i, trail in enumerate(scatter.trails):
        if not trail.name:
            continue
        name = plain(trail.name, limit=48)
        width = 36 + _LETTER * len(name)
        if left + width > WIDTH and left > 8:
            left, top = 8.0, top + 16
        element(svg, "line", f"line s{i}", x1=left, x2=left + 20, y1=top - 4, y2=top - 4)
        element(svg, "circle", f"dot s{i}", cx=left + 10, cy=top - 4, r=3.2)
        text(svg, left + 25, top, name)
        left, drawn = left + width, True
    if scatter.ring:
        width = 24 + _LETTER * len(scatter.ring)
        if left + width > WIDTH and left > 8:
            left, top = 8.0, top + 16
        element(svg, "circle", "hollow", cx=left + 8, cy=top - 4, r=6.5)
        text(svg, left + 20, top, scatter.ring)
        drawn = True
    return top + 16 if drawn else 36


def _trail(svg: ET.Element, scatter: Scatter, trail: Trail, i: int, x: Scale, y: Scale) -> None:
    if scatter.joined and len(trail.marks) > 1:
        path = " ".join(f"{x(mark.x)},{y(mark.y)}" for mark in trail.marks)
        element(svg, "polyline", f"line thin s{i}", points=path)
    for mark in trail.marks:
        here = {"cx": x(mark.x), "cy": y(mark.y)}
        if mark.x_bar:
            low, high = (x(v) for v in mark.x_bar)
            element(svg, "line", f"whisker s{i}", x1=low, x2=high, y1=here["cy"], y2=here["cy"])
        if mark.y_bar:
            low, high = (y(v) for v in mark.y_bar)
            element(svg, "line", f"whisker s{i}", x1=here["cx"], x2=here["cx"], y1=low, y2=high)
        if mark.ringed:
            element(svg, "circle", "hollow", r=6.5, **here)
        dot = element(svg, "circle", f"dot s{i}", r=3.4, **here)
        ET.SubElement(dot, "title").text = plain(mark.says)


def _labels(svg: ET.Element, marks: Sequence[Mark], x: Scale, y: Scale, top: float) -> None:
    if len(marks) > MOST_LABELS:
        return
    taken: list[tuple[float, float, float]] = []  # left, right, baseline of labels there already
    for mark in marks:
        label = plain(mark.label, limit=16)
        width = _LETTER * len(label)
        for side, down in ((7, -7), (7, 16), (-7, -7), (-7, 16)):
            left = x(mark.x) + side - (width if side < 0 else 0)
            place = (left, left + width, y(mark.y) + down)
            inside = left > _LEFT and place[1] < WIDTH and top + 6 < place[2] < HEIGHT - _BOTTOM
            if inside and not any(_overlap(place, other) for other in taken):
                text(svg, left, place[2], label)
                taken.append(place)
                break  # where all four places are taken, pointing at the mark says what it is


def _overlap(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    return a[0] < b[1] + 4 and b[0] < a[1] + 4 and abs(a[2] - b[2]) < 11


def radar(
    slug: str,
    title: str,
    description: str,
    axes: Sequence[str],
    shapes: Sequence[tuple[str, Sequence[float]]],
    rims: tuple[str, str],
) -> ET.Element:
    """Closed shapes over `axes`, each value from 0 (centre) to 1 (rim); NaN leaves a gap.

    `rims` are written at the centre and at the rim of the first axis.
    """
    names = [plain(name, limit=60) for name, _ in shapes]
    rows = _rows_of(names)
    top = 34 + 16 * (max(rows, default=0) + 1)
    radius, middle = 128.0, WIDTH / 2
    centre = top + radius + 26
    svg = canvas(slug, title, description, WIDTH, centre + radius + 34)
    text(svg, 8, 18, title, kind="title")
    left, row = 8.0, 0
    for i, name in enumerate(names):
        if rows[i] != row:
            left, row = 8.0, rows[i]
        y = 38 + 16 * row
        element(svg, "line", f"line s{i}", x1=left, x2=left + 20, y1=y - 4, y2=y - 4)
        text(svg, left + 25, y, name)
        left += 36 + _LETTER * len(name)
    angles = [2 * math.pi * i / len(axes) for i in range(len(axes))]
    for share in (0.25, 0.5, 0.75, 1.0):
        ring = " ".join(_at(middle, centre, radius * share, angle) for angle in angles)
        element(svg, "polygon", "web", points=ring)
    for angle, name in zip(angles, axes, strict=True):
        sine, cosine = math.sin(angle), math.cos(angle)
        end = {"x2": middle + radius * sine, "y2": centre - radius * cosine}
        element(svg, "line", "grid", x1=middle, y1=centre, **end)
        anchor = "middle" if abs(sine) < 0.3 else ("start" if sine > 0 else "end")
        place = (middle + (radius + 9) * sine, centre - (radius + 12) * cosine + 4)
        text(svg, *place, plain(name, limit=18), anchor=anchor)
    for i, (_, values) in enumerate(shapes):
        _shape(svg, i, values, angles, (middle, centre, radius))
    text(svg, middle + 5, centre + 4, rims[0])
    text(svg, middle + 5, centre - radius + 13, rims[1])
    return svg


def _shape(
    svg: ET.Element,
    i: int,
    values: Sequence[float],
    angles: Sequence[float],
    frame: tuple[float, float, float],
) -> None:
    middle, centre, radius = frame
    points = [
        _at(middle, centre, radius * value, angle)
        for value, angle in zip(values, angles, strict=True)
        if math.isfinite(value)
    ]
    whole = len(points) == len(values)
    if len(points) > 1:
        tag = "polygon" if whole else "polyline"
        element(svg, tag, f"line s{i}", points=" ".join(points))


def _rows_of(names: Sequence[str]) -> list[int]:
    """In which row of the legend each name stands."""
    left, row, rows = 8.0, 0, []
    for name in names:
        width = 36 + _LETTER * len(name)
        if left + width > WIDTH and left > 8:
            left, row = 8.0, row + 1
        rows.append(row)
        left += width
    return rows


def _at(middle: float, centre: float, distance: float, angle: float) -> str:
    x, y = middle + distance * math.sin(angle), centre - distance * math.cos(angle)
    return f"{x:.2f},{y:.2f}"
