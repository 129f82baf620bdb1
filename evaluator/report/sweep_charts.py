"""From the points of a sweep to drawings: trade-offs, metrics against a setting, groups."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree as ET

import numpy as np

from evaluator.report.svg import NUM_COLOURS
from evaluator.report.sweep_front import alone, pareto_front
from evaluator.report.sweep_layout import Layout
from evaluator.report.sweep_points import (
    GroupKey,
    MetricKey,
    SweepResults,
    short,
    shown,
    spread,
    value_of,
)
from evaluator.report.sweep_ranks import Ranking
from evaluator.report.sweep_svg import Bar, Mark, Scatter, Trail, draw_scatter, radar
from evaluator.report.text import number, plain


class Figure(NamedTuple):
    """A drawing with the words that go with it."""

    slug: str
    svg: ET.Element
    says: str


class GroupTable(NamedTuple):
    """One metric by the values of a tag, at every point."""

    metric: str
    tag: str
    values: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, float | None]]]]
    """Each point with what is shown of every value, and the number itself."""
    figure: Figure | None
    """None where there are fewer than three values: two axes enclose no area."""


def trade_offs(
    sweep: SweepResults, layout: Layout, metrics: Sequence[MetricKey], ranking: Ranking
) -> list[Figure]:
    """Every pair of the metrics against each other, with the front of the two."""
    return [
        _trade_off(sweep, layout, x, y, ranking, f"trade-off-{i + 1}")
        for i, (x, y) in enumerate(itertools.combinations(metrics, 2))
    ]


def _trade_off(
    sweep: SweepResults, layout: Layout, x: MetricKey, y: MetricKey, ranking: Ranking, slug: str
) -> Figure:
    ups = [bool(sweep.higher_is_better(metric)) for metric in (x, y)]
    kinds = ranking.kinds(sweep, (x, y))
    values = np.array([sweep.values(x), sweep.values(y)]).T
    front = pareto_front(values, ups, kinds) & ~alone(kinds)
    trails = []
    for line in layout.lines:
        marks = []
        for i in line.points:
            point = sweep.points[i]
            says = f"{point.label}: {_said(sweep, i, x)}, {_said(sweep, i, y)}"
            bars = _bar(sweep, i, x), _bar(sweep, i, y)
            label = shown(point.settings.get(layout.main))
            place = float(values[i, 0]), float(values[i, 1])
            marks.append(Mark(*place, *bars, label, says, bool(front[i])))
        trails.append(Trail(line.name, marks))
    corner = f"{'upper' if ups[1] else 'lower'} {'right' if ups[0] else 'left'}"
    kept = [point.label for point, on in zip(sweep.points, front, strict=True) if on]
    says = (
        f"{y.label} against {x.label}; better is {corner}. Bars are intervals of each point alone. "
        f"On the front, where no other point is as good in both and better in one: "
        f"{'; '.join(kept) or 'none'}."
    )
    if len(set(kinds)) > 1:
        says += " Points that cannot be compared are not weighed against each other."
    if layout.joined:
        says += f" Lines follow {short(layout.main)}, which is written beside the points."
    title = f"{y.label} against {x.label}"
    scatter = Scatter(
        slug, title, says, _axis(sweep, x, True), _axis(sweep, y, False), trails,
        joined=layout.joined, ring="on the Pareto front",
    )  # fmt: skip
    return Figure(slug, draw_scatter(scatter), says)


def _axis(sweep: SweepResults, metric: MetricKey, across: bool) -> str:
    """The metric with where better is."""
    if (up := sweep.higher_is_better(metric)) is None:
        return metric.label
    if across:
        return f"{metric.label}, better →" if up else f"← better, {metric.label}"
    return f"{metric.label}, better {'↑' if up else '↓'}"


def _said(sweep: SweepResults, i: int, metric: MetricKey) -> str:
    return f"{metric.label} {spread(sweep.points[i].results.get(metric))}"


def _bar(sweep: SweepResults, i: int, metric: MetricKey) -> Bar:
    result = sweep.points[i].results.get(metric)
    if result is None or result.interval is None:
        return None
    return result.interval.low, result.interval.high


def against_setting(sweep: SweepResults, layout: Layout) -> list[Figure]:
    """Each metric along the setting, with the interval of each point."""
    ticks: list[str] = []
    if not layout.numeric:
        everything = (shown(point.settings.get(layout.main)) for point in sweep.points)
        ticks = list(dict.fromkeys(everything))
    figures = []
    for place, metric in enumerate(sweep.metrics):
        trails = []
        for line in layout.lines:
            marks = []
            for i in line.points:
                setting = sweep.points[i].settings.get(layout.main)
                x = float(ticks.index(shown(setting))) if ticks else float(setting or 0)
                says = f"{sweep.points[i].label}: {_said(sweep, i, metric)}"
                value = value_of(sweep.points[i].results.get(metric))
                marks.append(Mark(x, value, None, _bar(sweep, i, metric), "", says))
            trails.append(Trail(line.name, marks))
        title = f"{metric.label} against {short(layout.main)}"
        says = f"{title}, with the interval of each point alone{_better(sweep, metric)}."
        slug = f"metric-{place + 1}"
        scatter = Scatter(
            slug, title, says, short(layout.main), _axis(sweep, metric, False), trails,
            joined=layout.joined, ticks=ticks,
        )  # fmt: skip
        figures.append(Figure(slug, draw_scatter(scatter), says))
    return figures


def _better(sweep: SweepResults, metric: MetricKey) -> str:
    words = {True: "; higher is better", False: "; lower is better", None: ""}
    return words[sweep.higher_is_better(metric)]


# -- groups ---------------------------------------------------------------------------------------


def by_groups(sweep: SweepResults, layout: Layout) -> list[GroupTable]:
    """Each metric that was computed by a tag: a table of all points, a radar of some."""
    return [
        _by_group(sweep, layout, metric, tag, f"groups-{i + 1}")
        for i, (metric, tag) in enumerate(sweep.tags)
    ]


def _by_group(
    sweep: SweepResults, layout: Layout, metric: MetricKey, tag: str, slug: str
) -> GroupTable:
    found = (g for point in sweep.points for m, g in point.groups if m == metric and g.tag == tag)
    values = sorted({group.value for group in found})
    rows = []
    for point in sweep.points:
        results = [point.groups.get((metric, GroupKey(tag, value))) for value in values]
        cells = [(spread(r), None if r is None else r.value) for r in results]
        rows.append((point.label, cells))
    figure = _radar(sweep, layout, metric, tag, values, slug) if len(values) > 2 else None
    return GroupTable(metric.label, tag, values, rows, figure)


def _radar(
    sweep: SweepResults,
    layout: Layout,
    metric: MetricKey,
    tag: str,
    values: Sequence[str],
    slug: str,
) -> Figure | None:
    """Points on one scale for all axes, from the worst number of any of them to the best.

    Where neither direction is better, from the lowest to the highest, and it says so.
    """
    points = _some(layout)
    numbers = np.array([
        [value_of(sweep.points[i].groups.get((metric, GroupKey(tag, v)))) for v in values]
        for i in points
    ])  # fmt: skip
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    up = sweep.higher_is_better(metric)
    worst, best = (high, low) if up is False else (low, high)
    ends = ("lowest", "highest") if up is None else ("worst", "best")
    shares = (numbers - worst) / (best - worst) if best != worst else np.where(
        np.isfinite(numbers), 1.0, math.nan
    )  # fmt: skip
    shapes = [(sweep.points[i].label, shares[row].tolist()) for row, i in enumerate(points)]
    says = (
        f"{metric.label} by {tag}. One scale for all axes: the centre is the {ends[0]} number "
        f"shown, {number(worst)}, the rim the {ends[1]}, {number(best)}"
        f"{'; neither direction is better' if up is None else ''}. Read distances from the centre, "
        "not areas: these depend on the order of the axes."
    )
    if len(points) < len(sweep.points):
        says += f" Drawn are {len(points)} of {len(sweep.points)} points; the table has all."
    title = f"{metric.label} by {plain(tag)}"
    drawn = radar(slug, title, says, values, shapes, (number(worst), number(best)))
    return Figure(slug, drawn, says)


def _some(layout: Layout) -> list[int]:
    """At most as many points as there are colours, spread over the last line first."""
    points = list(layout.lines[-1].points)
    if len(layout.lines) > 1 and len(points) < NUM_COLOURS // 2:
        points = [i for line in layout.lines for i in line.points]
    chosen = np.unique(np.linspace(0, len(points) - 1, NUM_COLOURS).round().astype(int))
    return [points[i] for i in chosen]
