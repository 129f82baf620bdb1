"""How the points of a sweep are laid out: along which setting, in which lines, by which metrics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evaluator.errors import ConfigError
from evaluator.report.svg import NUM_COLOURS
from evaluator.report.sweep_front import told_apart
from evaluator.report.sweep_points import MetricKey, SweepResults, short, shown

KINDS: Mapping[str, Sequence[str]] = {
    "quality": ("precision", "density", "fid", "fd", "kid", "kd", "cmmd"),
    "diversity": ("recall", "coverage", "vendi", "diversity", "inception_score", "is"),
    "consistency": ("clip_score",),
}
"""What metrics are about, by how their names begin."""


class Line(NamedTuple):
    """Points that differ in one setting, in its order."""

    name: str
    points: Sequence[int]


@dataclass(frozen=True, slots=True)
class Layout:
    """The setting along which points are joined, and the lines that the others leave."""

    main: str
    numeric: bool
    lines: Sequence[Line]
    joined: bool
    """Whether the points of a line are joined; not where there are more lines than colours."""


def lay_out(sweep: SweepResults) -> Layout:
    """Along the numeric setting with the most values, else along the one with the most values."""
    columns = {path: [point.settings.get(path) for point in sweep.points] for path in sweep.paths}
    main = max(
        columns, key=lambda path: (_is_numeric(columns[path]), len({*map(shown, columns[path])}))
    )
    numeric = _is_numeric(columns[main])
    along = [shown(value) for value in columns[main]]
    others = [path for path in sweep.paths if path != main and not _follows(columns[path], along)]
    lines: dict[str, list[int]] = {}
    for i in range(len(sweep.points)):
        name = ", ".join(f"{short(path)} {shown(columns[path][i])}" for path in others)
        lines.setdefault(name, []).append(i)
    if numeric:
        for points in lines.values():
            points.sort(key=lambda i: float(columns[main][i] or 0))
    found = [Line(name, points) for name, points in lines.items()]
    if len(found) > NUM_COLOURS:
        everything = list(itertools.chain.from_iterable(lines.values()))
        return Layout(main, numeric, [Line("", everything)], joined=False)
    return Layout(main, numeric, found, joined=numeric)


def _is_numeric(values: Sequence[object]) -> bool:
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        for value in values
    )


def _follows(values: Sequence[object], along: Sequence[str]) -> bool:
    """Whether a setting has one value for each of another one: zipped, they change together."""
    pairs = {(a, shown(value)) for a, value in zip(along, values, strict=True)}
    return len(pairs) == len(set(along))


def weighed(sweep: SweepResults, asked: Sequence[str] = ()) -> list[MetricKey]:
    """The two or three metrics that the points trade against each other.

    Those `asked` for by name, else one each of quality, diversity and consistency: the one whose
    intervals tell most pairs of points apart. Else the first two that differ. Raises ConfigError
    for a name that no point has.
    """
    directed = [metric for metric in sweep.metrics if sweep.higher_is_better(metric) is not None]
    if asked:
        return _asked(directed, asked)
    telling = [metric for metric in directed if _differs(sweep.values(metric))]
    found = []
    for names in KINDS.values():
        fitting = [m for name in names for m in telling if f"{m.name}_".startswith(f"{name}_")]
        if fitting:
            found.append(max(fitting, key=lambda metric: told_apart(*sweep.bounds(metric))))
    found += [metric for metric in telling if metric not in found][: max(0, 2 - len(found))]
    return found if len(found) > 1 else []


def _asked(known: Sequence[MetricKey], asked: Sequence[str]) -> list[MetricKey]:
    labels = [metric.label for metric in known]
    faults = [name for name in asked if name not in labels]
    if faults or not 2 <= len(set(asked)) <= 3:
        raise ConfigError(
            f"--metrics: expected two or three of {', '.join(labels)}, got {', '.join(asked)}."
        )
    return [known[labels.index(name)] for name in dict.fromkeys(asked)]


def _differs(values: Sequence[float]) -> bool:
    return len({value for value in values if math.isfinite(value)}) > 1
