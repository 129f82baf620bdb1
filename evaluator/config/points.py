"""The points of a sweep: every combination of values, each with its name and configuration."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evaluator.config.load import (
    apply_overrides,
    describe_faults,
    parse_record,
    read_record,
    set_value,
    with_faults,
)
from evaluator.config.point_names import run_name, suffix_of
from evaluator.config.schema import RunConfig
from evaluator.config.sweep import SweepConfig
from evaluator.errors import ConfigError

NOT_SWEPT = ("name", "output", "sweep")
"""Where a run lies follows from its point."""

Values = Mapping[str, Any]
"""Path of a setting → its value at one point."""


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a sweep."""

    suffix: str
    """Name of its folder in the sweep's; made from its values alone, so that it stays."""
    values: Values
    config: RunConfig

    @property
    def label(self) -> str:
        """`generation.guidance_scale=3, generation.steps=20`."""
        return ", ".join(f"{path}={_shown(value)}" for path, value in self.values.items())


@dataclass(frozen=True, slots=True)
class Sweep:
    """One run for each point; all share prompts and seeds unless they sweep these."""

    name: str
    output: str
    points: tuple[Point, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The settings that are swept, in the order in which the section has them."""
        return tuple(dict.fromkeys(path for point in self.points for path in point.values))


def load_runs(path: Path, overrides: Sequence[str] = ()) -> RunConfig | Sweep:
    """What a configuration file asks for: one run, or a sweep where it has such a section.

    Raises ConfigError with every fault of every point.
    """
    record = read_record(path)
    apply_overrides(record, overrides)
    if record.get("sweep") is None:
        return parse_record(record, where=str(path))
    return expand(record, overrides, where=str(path))


def expand(record: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str) -> Sweep:
    """The points of a configuration with a section `sweep`, which the overrides are laid over.

    Raises ConfigError with every fault: of the section, or of all points at once.
    """
    base = copy.deepcopy(dict(record))
    apply_overrides(base, overrides)
    section = _section(base, where=where)
    set_paths = [override.partition("=")[0].strip() for override in overrides]
    if faults := _faults_of_section(section, set_paths):
        raise with_faults(where, faults)
    del base["sweep"]
    every = list(_combinations(section))
    suffixes = [suffix_of(values) for values in every]
    configs, told = [], {}
    for values, suffix in zip(every, suffixes, strict=True):
        try:
            configs.append(_config_of(base, values))
        except ConfigError as error:
            told[suffix] = error.faults or (str(error),)
    if told:
        raise with_faults(where, once_for_all(told, len(every)))
    if faults := _twins(every, suffixes, configs):
        raise with_faults(where, faults)
    name = configs[0].name
    points = tuple(
        Point(suffix, values, config.model_copy(update={"name": run_name(name, suffix)}))
        for suffix, values, config in zip(suffixes, every, configs, strict=True)
    )
    return Sweep(name, configs[0].output, points)


def once_for_all(told: Mapping[str, Sequence[str]], num_points: int) -> list[str]:
    """Faults of points, each once, and at which points it is unless it is at all of them."""
    places: dict[str, list[str]] = {}
    for suffix, faults in told.items():
        for fault in faults:
            places.setdefault(fault, []).append(suffix)
    lines = []
    for fault, suffixes in places.items():
        if len(suffixes) == num_points:
            lines.append(fault)
        else:
            more = f" and {len(suffixes) - 1} more" if len(suffixes) > 1 else ""
            lines.append(f"{fault} (at {suffixes[0]}{more})")
    return lines


# -- the section ----------------------------------------------------------------------------------


def _section(record: Mapping[str, Any], *, where: str) -> SweepConfig:
    """The validated section. Other sections may become valid only by the values of a point."""
    try:
        RunConfig.model_validate(record)
    except ValidationError as error:
        faults = [line for line in describe_faults(error) if line.startswith("sweep")]
        if faults:
            raise with_faults(where, faults) from error
    return SweepConfig.model_validate(record["sweep"])


def _faults_of_section(section: SweepConfig, set_paths: Sequence[str]) -> list[str]:
    """What is wrong with the section before any point is looked at."""
    places = [(f"sweep.grid.{path}", path) for path in section.grid]
    places += [(f"sweep.zip.{path}", path) for path in section.zip]
    listed = dict.fromkeys(path for point in section.list for path in point)
    places += [(f"sweep.list.{path}", path) for path in listed]
    faults = [fault for where, path in places for fault in _faults_of_path(where, path, set_paths)]
    for form in ("grid", "zip"):
        for path, values in getattr(section, form).items():
            if not values:
                faults.append(f"sweep.{form}.{path}: expected at least one value, got none")
    lengths = {path: len(values) for path, values in section.zip.items()}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{path}: {length}" for path, length in lengths.items())
        faults.append(f"sweep.zip: expected lists of one length, got {got}")
    for i, point in enumerate(section.list):
        if not point:
            faults.append(f"sweep.list.{i}: expected settings (generation.steps: 20), got none")
    faults += _overlaps(section)
    if not places:
        faults.append("sweep: expected settings under grid, zip or list, got none")
    count = _count(section)
    if count > section.max_points:
        faults.append(
            f"sweep: expected at most {section.max_points} points, got {count}; take values out, "
            "or raise sweep.max_points"
        )
    return faults


def _faults_of_path(where: str, path: str, set_paths: Sequence[str]) -> Iterator[str]:
    parts = path.split(".")
    if not all(parts):
        yield f"{where}: expected a path such as generation.steps"
    elif parts[0] in NOT_SWEPT:
        yield f"{where}: '{parts[0]}' cannot be swept; where a run lies follows from its point"
    for given in set_paths:
        if _within(given, path):
            yield f"{where}: --set {given} sets what the sweep sets; change sweep itself instead"


def _overlaps(section: SweepConfig) -> list[str]:
    """Settings that two forms set, or of which one lies inside the other."""
    forms = [("grid", [section.grid]), ("zip", [section.zip]), ("list", list(section.list))]
    faults = []
    for i, (form, mappings) in enumerate(forms):
        for mapping in mappings:
            for a, b in itertools.permutations(mapping, 2):
                if a != b and _within(a, b):
                    faults.append(f"sweep.{form}: '{a}' lies inside '{b}'; sweep one of them")
        for other, others in forms[i + 1 :]:
            mine = {path for mapping in mappings for path in mapping}
            theirs = {path for mapping in others for path in mapping}
            for a, b in itertools.product(sorted(mine), sorted(theirs)):
                if _within(a, b) or _within(b, a):
                    names = f"'{a}'" if a == b else f"'{a}' and '{b}', one inside the other,"
                    faults.append(f"sweep: {names} in both {form} and {other}; leave one out")
    return list(dict.fromkeys(faults))


def _within(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}.")


def _count(section: SweepConfig) -> int:
    count = math.prod(len(values) for values in section.grid.values())
    if section.zip:
        count *= min(len(values) for values in section.zip.values())
    return count * (len(section.list) or 1)


def _combinations(section: SweepConfig) -> Iterator[Values]:
    """Every point's values, in the order in which the section has them."""
    grid: list[Values] = [
        dict(zip(section.grid, values, strict=True))
        for values in itertools.product(*section.grid.values())
    ]
    zipped: list[Values] = [
        dict(zip(section.zip, values, strict=True))
        for values in zip(*section.zip.values(), strict=True)
    ] or [{}]
    for first, second, third in itertools.product(grid, zipped, section.list or ({},)):
        yield {**first, **second, **third}


# -- a point --------------------------------------------------------------------------------------


def _config_of(base: Mapping[str, Any], values: Values) -> RunConfig:
    """The configuration of one point; ConfigError with all that its values do not allow."""
    record = copy.deepcopy(dict(base))
    faults: list[str] = []
    for path, value in values.items():
        try:
            set_value(record, path, copy.deepcopy(value), where=f"sweep of {path}")
        except ConfigError as error:
            faults.append(str(error))
    try:
        config = RunConfig.model_validate(record)
    except ValidationError as error:
        faults += describe_faults(error)
    if faults:
        raise ConfigError("a point has faults:", tuple(faults))
    return config


def _twins(
    every: Sequence[Values], suffixes: Sequence[str], configs: Sequence[RunConfig]
) -> list[str]:
    """Points that are the same run, or would lie in one folder."""
    faults = []
    seen: dict[str, str] = {}
    for suffix, config in zip(suffixes, configs, strict=True):
        content = config.model_dump_json()
        if content in seen:
            faults.append(
                f"sweep: expected points that differ, got {seen[content]} and {suffix}, which are "
                "the same run; leave one out"
            )
        seen.setdefault(content, suffix)
    folders: dict[str, Values] = {}
    for suffix, values in zip(suffixes, every, strict=True):
        if suffix in folders and not faults:
            faults.append(f"sweep: two points would lie in one folder, {suffix}; leave one out")
        folders[suffix] = values
    return faults


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
