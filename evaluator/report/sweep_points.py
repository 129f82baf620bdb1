"""The numbers of every point of a sweep, side by side, read from its folder and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from evaluator.errors import EvaluatorError
from evaluator.report.results import Metrics, Result, read_metrics
from evaluator.report.text import number, plain
from evaluator.store.rundir import RunDirectory
from evaluator.store.settings import read_provenance
from evaluator.store.sweeps import members, read_points


class MetricKey(NamedTuple):
    """What tells one number of a run from its others, groups aside."""

    name: str
    reference: str
    """Empty where there is one reference at most."""

    @property
    def label(self) -> str:
        """`fid`, or `fid against coco`."""
        return f"{self.name} against {self.reference}" if self.reference else self.name


class GroupKey(NamedTuple):
    """The samples whose prompts have one value of a tag."""

    tag: str
    value: str


@dataclass(frozen=True, slots=True)
class SweptPoint:
    """One run of the sweep with its numbers. All text is fit to show."""

    folder: str
    settings: Mapping[str, Any]
    """Path → value, as sweep.json has them."""
    results: Mapping[MetricKey, Result]
    groups: Mapping[tuple[MetricKey, GroupKey], Result]
    prompts: str | None
    """Fingerprint of the prompts."""
    trouble: str = ""
    """Why numbers are missing, or not shown; empty when all are there."""

    @property
    def label(self) -> str:
        """The values that set it apart: `guidance_scale 3, steps 20`."""
        return ", ".join(f"{short(path)} {shown(v)}" for path, v in self.settings.items())


@dataclass(frozen=True, slots=True)
class SweepResults:
    """All points, and what can be said of them together."""

    name: str
    paths: Sequence[str]
    points: Sequence[SweptPoint]
    metrics: Sequence[MetricKey]
    """Those with a value at any point, in the order of the first run."""
    remarks: Sequence[str] = field(default_factory=tuple)
    """What hinders comparing the points, in sentences."""
    warnings: Sequence[str] = field(default_factory=tuple)
    """What the numbers themselves say of their limits, each with its metrics and points."""

    def values(self, metric: MetricKey) -> list[float]:
        """The value at each point; NaN where there is none."""
        return [value_of(point.results.get(metric)) for point in self.points]

    def bounds(self, metric: MetricKey) -> tuple[list[float], list[float]]:
        """The ends of the interval at each point; NaN where there is none."""
        found = [point.results.get(metric) for point in self.points]
        ends = [(r.interval.low, r.interval.high) if r and r.interval else None for r in found]
        low, high = ([math.nan if end is None else end[k] for end in ends] for k in (0, 1))
        return low, high

    def higher_is_better(self, metric: MetricKey) -> bool | None:
        """The direction of a metric, which a number that failed does not tell.

        None where neither is better.
        """
        found = (point.results.get(metric) for point in self.points)
        said = (result.higher_is_better for result in found if result is not None)
        return next((each for each in said if each is not None), None)

    def arrow(self, metric: MetricKey) -> str:
        """↑, ↓ or nothing."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better(metric)]

    @property
    def paired(self) -> bool:
        """Whether all points have the same prompts and seeds."""
        prompts = {point.prompts for point in self.points}
        seeds = any(path.startswith("generation.seed") for path in self.paths)
        return len(prompts) == 1 and None not in prompts and not seeds

    @property
    def tags(self) -> list[tuple[MetricKey, str]]:
        """Metrics that were computed by the values of a tag."""
        keys = ((m, group.tag) for point in self.points for m, group in point.groups)
        return list(dict.fromkeys(keys))


def short(path: str) -> str:
    """A path as it is written beside its values."""
    return plain(path.removeprefix("generation."), limit=60)


def shown(value: object) -> str:
    """A value of a setting, fit to show; a part with a name goes by it."""
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        rest = [f"{key} {shown(each)}" for key, each in value.items() if key != "name"]
        return plain(" ".join([value["name"], f"({', '.join(rest)})" * bool(rest)]), limit=60)
    if isinstance(value, str):
        return plain(value, limit=60)
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.12g}"
    return plain(json.dumps(value, ensure_ascii=False, default=str), limit=60)


def value_of(result: Result | None) -> float:
    """The number of a result; NaN where there is none."""
    return math.nan if result is None or result.value is None else result.value


def read_sweep(folder: Path) -> SweepResults:
    """Read every point of a sweep; what is missing or differs becomes a remark.

    Raises RunDirectoryError where the folder is no sweep's.
    """
    name, known = read_points(folder)
    points = [_read_point(folder / p.folder, plain(p.folder), dict(p.values)) for p in known]
    metrics = dict.fromkeys(
        key for point in points for key, result in point.results.items() if result.value is not None
    )
    paths = dict.fromkeys(path for point in points for path in point.settings)
    remarks = [f"{point.label}: {point.trouble}" for point in points if point.trouble]
    return SweepResults(
        plain(name),
        tuple(paths),
        points,
        tuple(metrics),
        (*remarks, *_differences(points)),
        (*_warnings(points), *(plain(line) for line in members(folder).left_out)),
    )


def _read_point(path: Path, folder: str, settings: Mapping[str, Any]) -> SweptPoint:
    metrics = read_metrics(path)
    several = len({result.reference for result in metrics.results if result.reference}) > 1
    whole: dict[MetricKey, Result] = {}
    again: list[str] = []
    groups: dict[tuple[MetricKey, GroupKey], Result] = {}
    for result in metrics.results:
        key = MetricKey(result.metric, result.reference if several else "")
        if result.group:
            tag, value = result.group[0]
            found = GroupKey(plain(tag, limit=40), plain(value, limit=40))
            groups.setdefault((key, found), result)
        else:
            again += [key.label] if key in whole else []
            whole.setdefault(key, result)
    trouble = _trouble(path, metrics)
    if again and not trouble:
        trouble = (
            f"{', '.join(dict.fromkeys(again))} stands in its numbers again; the first counts."
        )
    return SweptPoint(folder, settings, whole, groups, _prompts(path), trouble)


def _trouble(path: Path, metrics: Metrics) -> str:
    """Why the numbers of a point are not all there; empty when they are."""
    if not (path / "init").is_dir():
        return "not begun yet."
    if metrics.trouble:
        return metrics.trouble
    planned, committed = (metrics.samples.get(name) for name in ("planned", "committed"))
    if committed != planned:
        return f"incomplete, {committed} of {planned} samples are in its numbers."
    missing = [result.name for result in metrics.results if result.value is None]
    return f"no number for {', '.join(missing)}." if missing else ""


def _prompts(path: Path) -> str | None:
    """Fingerprint of the prompts of a run; None where it does not say."""
    try:
        record = read_provenance(RunDirectory.open(path))
        return str(record["prompts"]["fingerprint"])
    except (EvaluatorError, KeyError, TypeError):
        return None


def _differences(points: Sequence[SweptPoint]) -> list[str]:
    """What is not the same at all points, and makes their numbers hard to compare."""
    remarks = []
    if len({point.prompts for point in points if point.prompts is not None}) > 1:
        remarks.append("The points have different prompts: their numbers are not paired.")
    counts: dict[str, set[int]] = {}
    prints: dict[str, set[str]] = {}
    for point in points:
        for key, result in point.results.items():
            if result.num is not None and result.value is not None:
                counts.setdefault(key.label, set()).add(result.num)
                prints.setdefault(key.label, set()).add(result.fingerprint)
    uneven = [name for name, found in counts.items() if len(found) > 1]
    if uneven:
        spread = sorted(set().union(*(counts[name] for name in uneven)))
        remarks.append(
            f"{', '.join(uneven)}: from {spread[0]:,} to {spread[-1]:,} samples; what depends on "
            "the number of samples cannot be compared."
        )
    other = [name for name, found in prints.items() if len(found) > 1]
    if other:
        remarks.append(
            f"{', '.join(other)}: the extractors differ between points; their numbers cannot be "
            "compared."
        )
    return remarks


def _warnings(points: Sequence[SweptPoint]) -> tuple[str, ...]:
    """Each warning of a number once, groups aside: of which metrics, and at how many points."""
    found: dict[str, tuple[dict[str, None], set[str]]] = {}
    for point in points:
        for key, result in point.results.items():
            for warning in result.warnings:
                metrics, places = found.setdefault(warning, ({}, set()))
                metrics[key.label] = None
                places.add(point.folder)
    said = []
    for warning, (metrics, places) in found.items():
        where = "" if len(places) == len(points) else f" (at {len(places)} of {len(points)} points)"
        said.append(f"{', '.join(metrics)}: {warning}{where}")
    return tuple(said)


def spread(result: Result | None) -> str:
    """`93.9 ± 0.1`, or `0.98 (0.96 – 1.00)`, or a dash."""
    if result is None or result.value is None:
        return "—"
    if result.interval is None:
        return result.shown_value
    below, above = result.value - result.interval.low, result.interval.high - result.value
    if below > 0 and abs(below - above) <= 0.02 * below:
        places = len(result.shown_value.partition(".")[2])
        return f"{result.shown_value} ± {number((below + above) / 2, places=places)}"
    return f"{result.shown_value} ({result.shown_interval})"
