"""What a run was made with: `init/config.yaml` and `init/provenance.json`, read in one way."""

from __future__ import annotations

import json
from typing import Any

import yaml

from evaluator.errors import RunDirectoryError
from evaluator.store.rundir import RunDirectory
from evaluator.text import plain

MAX_SETTINGS = 100_000
"""Values of a configuration or of provenance, each counted wherever it stands."""


def read_config(run: RunDirectory) -> dict[str, Any]:
    """The configuration as it was resolved when the run began."""
    try:
        config = yaml.safe_load(run.init_file("config.yaml"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        config = error
    return _mapping(config, run, "config.yaml")


def read_provenance(run: RunDirectory) -> dict[str, Any]:
    """Versions, git revision, model revision and hash of its weights."""
    try:
        record = json.loads(run.init_file("provenance.json"))
    except (ValueError, RecursionError) as error:
        record = error
    return _mapping(record, run, "provenance.json")


def _mapping(record: Any, run: RunDirectory, name: str) -> dict[str, Any]:
    if isinstance(record, dict) and not _is_vast(record):
        return record
    if isinstance(record, dict):
        record = ValueError(f"more than {MAX_SETTINGS:,} values")
    raise RunDirectoryError(
        f"{run.path / 'init' / name}: expected names and values, got "
        f"{plain(record if isinstance(record, Exception) else type(record).__name__, limit=200)}. "
        "Copy the file from where the run was made."
    )


def _is_vast(record: Any) -> bool:
    """Whether it has more values than anybody wrote: YAML may refer to itself, over and over."""
    waiting, seen = [record], 0
    while waiting and seen <= MAX_SETTINGS:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list):
            seen += len(inner)
            waiting += inner
    return seen > MAX_SETTINGS
