"""What a run was made from: its name, settings and provenance, fit to show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from evaluator.errors import StorageError
from evaluator.report.text import plain, plain_lines, redacted
from evaluator.store.rundir import RunDirectory

MAX_ROWS = 200
"""Rows of provenance on the page."""


class Origin(NamedTuple):
    """Where the numbers come from."""

    title: str
    model: str
    config: str
    """config.yaml without secrets; empty when it is missing."""
    provenance: list[tuple[str, str]]
    """`model.revision`, value; nested names are joined by dots."""
    made_from: Mapping[str, Any]
    """What provenance.json says of the model, as it stands there."""


def read_origin(run: RunDirectory) -> Origin:
    """Read `init/`; what is missing or malformed is left empty."""
    text = _init_text(run, "config.yaml")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        config = None
    config = config if isinstance(config, Mapping) else {}
    model = config.get("model")
    record = _record(_init_text(run, "provenance.json"))
    made_from = record.get("model")
    said = [model.get(name) for name in ("kind", "id")] if isinstance(model, Mapping) else []
    return Origin(
        title=plain(config.get("name") or "", limit=200) or plain(run.path.resolve().name),
        model=redacted(plain(" ".join(str(part) for part in said if part), limit=300)),
        config=redacted(plain_lines(text)),
        provenance=_provenance(record),
        made_from=made_from if isinstance(made_from, Mapping) else {},
    )


def _init_text(run: RunDirectory, name: str) -> str:
    try:
        return run.init_file(name).decode("utf-8", errors="replace")
    except StorageError:
        return ""


def _record(text: str) -> Mapping[str, Any]:
    try:
        record = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, Mapping) else {}


def _provenance(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in _leaves(record, ""):
        line = redacted(f"{plain(name, limit=200)}: {plain(value, limit=500)}")
        rows.append((line.partition(": ")[0], line.partition(": ")[2]))
    return rows[:MAX_ROWS]


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif value is not None and value != []:
        yield name or "value", value if isinstance(value, str) else json.dumps(value)
