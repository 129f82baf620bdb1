"""Runs as they lie on disk: their numbers and what they were made with, or why there are none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from evaluator.aggregate.asked import request_digest
from evaluator.aggregate.stored import NAME, StoredNumbers, read_numbers
from evaluator.aggregate.summary import MetricRecord
from evaluator.errors import EvaluatorError, NumbersError, RunDirectoryError
from evaluator.leaderboard.made_with import mapping, name_of, provenance_of
from evaluator.leaderboard.records import Provenance
from evaluator.store.rundir import RunDirectory
from evaluator.store.sweeps import is_sweep, members
from evaluator.text import count_of

MAX_DEPTH = 3
"""How deep a folder is searched for runs."""


class ReadRun(NamedTuple):
    """What one run says."""

    path: Path
    name: str
    """Its configured name; not yet distinct."""
    provenance: Provenance
    config: Mapping[str, Any]
    request: Mapping[str, Any]
    """What was asked, with the references' content; empty where asked.json is not there."""
    metrics: tuple[MetricRecord, ...]
    planned: int | None
    made: int | None
    """Samples with an image when the numbers were computed."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """All that could be read of the runs that were named."""

    runs: tuple[ReadRun, ...]
    """By name, then by path."""
    faults: tuple[str, ...]
    """About each path that was named and gave nothing."""
    remarks: tuple[str, ...]
    """About runs that a folder holds and that gave nothing."""


def collect(paths: Sequence[Path]) -> Collected:
    """Read each run directory, and each run in each folder of runs; a run given twice counts once.

    Of a sweep's folder only its points count. They come in order of their names and paths, however
    they are given: draws depend on it.
    What cannot be read becomes a sentence: it never keeps the others from being shown.
    """
    runs: dict[Path, ReadRun] = {}
    faults: list[str] = []
    remarks: list[str] = []
    for path in paths:
        named = (path / "init").is_dir()
        found = [path] if named else list(_runs_in(path, MAX_DEPTH, remarks))
        if not found:
            faults.append(_no_run(path))
        for each in found:
            if each.resolve() in runs:
                continue
            try:
                runs[each.resolve()] = read_run(each)
            except NumbersError as error:
                (faults if named else remarks).append(f"{each}: {error.reason}")
    ordered = sorted(runs.items(), key=lambda item: (item[1].name, str(item[0])))
    return Collected(tuple(run for _, run in ordered), tuple(faults), tuple(remarks))


def read_run(path: Path) -> ReadRun:
    """What `init/`, metrics.json and asked.json of a run say; no shard is read.

    Raises NumbersError where it has no number.
    """
    stored = read_numbers(path)
    metrics, warnings = _sound(stored)
    planned, committed = (stored.samples.get(name) for name in ("planned", "committed"))
    errors = stored.samples.get("errors", 0)
    if planned is not None and committed is not None and committed < planned:
        warnings.append(f"incomplete: {committed:,} of {planned:,} samples")
    elif lost := _lost(path):
        warnings.append(f"{lost} since its numbers were computed; continue the run")
    if errors:
        warnings.append(f"in no number: {count_of(errors, 'sample')} with an error")
    config = _yaml(path / "init" / "config.yaml")
    if not config:
        warnings.append("init/config.yaml cannot be read: its settings are not known")
    request = mapping(_json(path / "asked.json").get("request"))
    answered = stored.record.get("request")
    if request and isinstance(answered, str) and answered != request_digest(request):
        warnings.append("its numbers answer an earlier request; run `evaluator aggregate` again")
        request = {}
    return ReadRun(
        path=path,
        name=name_of(config, path),
        provenance=provenance_of(config, _json(path / "init" / "provenance.json")),
        config=config,
        request=request,
        metrics=metrics,
        planned=planned,
        made=None if committed is None else committed - errors,
        warnings=tuple(warnings),
    )


def _lost(path: Path) -> str:
    """What a complete run has lost of its shards, by their names; a run may be kept without any."""
    try:
        run = RunDirectory.open(path)
        there, planned = len(run.committed()), run.num_shards
    except EvaluatorError:
        return ""
    return f"lost {count_of(planned - there, 'shard')}" if 0 < there < planned else ""


def _runs_in(folder: Path, depth: int, remarks: list[str]) -> Iterator[Path]:
    """Run directories below a folder, in order of their names; runs are not searched."""
    if is_sweep(folder):
        try:
            sweep = members(folder)
        except RunDirectoryError as error:
            remarks.append(str(error))
            return
        remarks += [f"{folder}: {line}" for line in sweep.left_out]
        yield from sweep.points
        return
    try:
        inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError:
        return
    for path in inside:
        if (path / "init").is_dir():
            yield path
        elif depth > 1 and not path.is_symlink():
            yield from _runs_in(path, depth - 1, remarks)


def _no_run(path: Path) -> str:
    found = "nothing there"
    if is_sweep(path):
        found = "the folder of a sweep without any of its points"
    elif path.is_dir():
        found = "a folder without any"
    elif path.exists():
        found = "a file"
    return (
        f"{path}: expected a run directory (made by `evaluator run`) or a folder of runs, got "
        f"{found}; check the path"
    )


def _sound(stored: StoredNumbers) -> tuple[tuple[MetricRecord, ...], list[str]]:
    """The numbers that are what they should be, and a sentence about the others."""
    found = stored.sound()
    if not found:
        raise NumbersError(
            stored.folder,
            f"{NAME}: expected numbers, got none that can be read. `evaluator aggregate RUN` "
            "computes them again.",
        )
    damaged = len(stored.entries) - len(found)
    entries = "an entry" if damaged == 1 else f"{damaged} entries"
    warnings = [f"left out: {entries} of {NAME} that cannot be read"]
    return tuple(found), warnings * (damaged > 0)


def _yaml(path: Path) -> Mapping[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, some ten times as fast
    try:
        record = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506 - a safe loader
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return {}
    return mapping(record)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        return mapping(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return {}
