"""metrics.json as it was written, or why it cannot be read."""

from __future__ import annotations

import json
from typing import Any

import yaml

from evaluator.aggregate.summary import FORMAT, Summary
from evaluator.errors import RunDirectoryError, StorageError
from evaluator.store.rundir import RunDirectory
from evaluator.text import plain

MAX_SETTINGS = 100_000
"""Values of a configuration or of provenance, each counted wherever it stands."""

_AGAIN = "`evaluator aggregate RUN` computes the numbers from the tables."


def read_summary(run: RunDirectory) -> Summary:
    """All numbers of a run; RunDirectoryError where they cannot be had, with the reason."""
    path = run.path / "metrics.json"
    try:
        record = json.loads(path.read_bytes())
        found = record.get("format") if isinstance(record, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise RunDirectoryError(
                f"{path}: expected format {FORMAT} or older, got {found}. Use the evaluator that "
                "wrote it."
            )
        return Summary.from_record(record)
    except FileNotFoundError:
        raise RunDirectoryError(f"{path}: expected numbers, got no such file. {_AGAIN}") from None
    except OSError as error:
        raise StorageError(f"could not read {path}: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, RunDirectoryError):
            raise
        raise RunDirectoryError(
            f"{path}: expected numbers, got a file that does not hold them "
            f"({plain(repr(error), limit=120)}). {_AGAIN}"
        ) from error


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
