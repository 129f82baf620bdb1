"""What a run was made from: its name, settings and provenance, fit to show."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from evaluator.errors import EvaluatorError, StorageError
from evaluator.report.text import plain, plain_lines, redacted
from evaluator.store.rundir import RunDirectory
from evaluator.store.settings import read_config, read_provenance
from evaluator.text import count_of

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
    """`model` of provenance.json and `generation` of config.yaml, as they stand there."""


def read_origin(run: RunDirectory) -> Origin:
    """Read `init/`; what is missing or malformed is left empty."""
    config, record = _read(read_config, run), _read(read_provenance, run)
    model = config.get("model")
    made_from = {"model": record.get("model"), "generation": config.get("generation")}
    said = [model.get(name) for name in ("kind", "id")] if isinstance(model, Mapping) else []
    return Origin(
        title=_title(config, run),
        model=redacted(plain(" ".join(str(part) for part in said if part), limit=300)),
        config=redacted(plain_lines(_config_text(run))),
        provenance=_provenance(record),
        made_from=made_from,
    )


def _title(config: Mapping[str, Any], run: RunDirectory) -> str:
    """The run's name, and how many prompts it was limited to."""
    name = plain(config.get("name") or "", limit=200) or plain(run.path.resolve().name)
    prompts = config.get("prompts")
    limit = prompts.get("limit") if isinstance(prompts, Mapping) else None
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        return name
    return f"{name}, the first {count_of(limit, 'prompt')}"


def _read(read: Callable[[RunDirectory], dict[str, Any]], run: RunDirectory) -> Mapping[str, Any]:
    try:
        return read(run)
    except EvaluatorError:
        return {}


def _config_text(run: RunDirectory) -> str:
    try:
        return run.init_file("config.yaml").decode("utf-8", errors="replace")
    except StorageError:
        return ""


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
