"""A finished run answers at once: without loading a model, or even torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evaluator.aggregate.asked import request_digest
from evaluator.aggregate.stored import stored_summary
from evaluator.aggregate.summary import Summary
from evaluator.config.schema import RunConfig
from evaluator.runner import identity
from evaluator.runner.references import reference_content
from evaluator.runner.status import asked_tables
from evaluator.runner.surroundings import cache_folder, open_pack
from evaluator.runner.trust import Trust
from evaluator.store.quarantine import set_apart_incomplete, waiting
from evaluator.store.rundir import RunDirectory
from evaluator.weights import stamp


def request_of(config: RunConfig, trust: Trust) -> dict[str, Any]:
    """What a configuration asks of its samples, with the content of what it compares them to.

    Weights in local files are known by their stamp: training may write into them again.
    """
    return {
        "weights": _stamps(config, trust),
        "features": [feature.model_dump(mode="json") for feature in config.features],
        "metrics": [metric.model_dump(mode="json") for metric in config.metrics],
        "references": {
            name: reference_content(reference, config, trust)
            for name, reference in config.references.items()
        },
    }


def _stamps(config: RunConfig, trust: Trust) -> dict[str, str]:
    """The stamp of each local file or folder that model and extractors are loaded from."""
    parts = [part.model_dump(mode="json") for part in (*config.features, config.model)]
    locations = {name for part in parts for name in _locations(part)}
    stamps = {name: stamp(name, relative_to=trust.relative_to) for name in locations}
    return {name: found for name, found in stamps.items() if found is not None}


def _locations(record: Mapping[str, Any]) -> Iterator[str]:
    """What may be a file or folder: `id` and `source` at any depth, and texts among `options`."""
    for name, value in record.items():
        if isinstance(value, str) and value and name in ("id", "source"):
            yield value
        elif isinstance(value, Mapping):
            yield from _locations(value)
            if name == "options":
                yield from (text for text in value.values() if isinstance(text, str) and text)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, Mapping):
                    yield from _locations(item)


def finished_summary(config: RunConfig, path: Path, trust: Trust) -> Summary | None:
    """The numbers of a run that is complete and was asked just this; None otherwise.

    A shard that lacks a file is set apart here, to be made again. Raises RunDirectoryError when
    the directory holds another evaluation.
    """
    if not (path / "init").is_dir() or not (path / "metrics.json").is_file():
        return None
    run = RunDirectory.open(path)
    if not run.committed():
        return None
    pack = open_pack(config.prompts, cache_folder(config), trust)
    identity.require_same(run, config, pack.fingerprint)
    summary = stored_summary(path)
    if summary is None:
        return None
    # A number that is missing may be there by now: only a run without gaps is finished.
    whole = summary.complete and all(metric.value is not None for metric in summary.metrics)
    there = len(run.committed()) == run.num_shards and whole
    # Not what was asked last: two at once may have asked, and the other written its numbers after.
    same = summary.request == request_digest(request_of(config, trust))
    if not (there and same) or set_apart_incomplete(run):
        return None
    # A table that was made later may be set apart alone.
    return None if waiting(run, asked_tables(run)) else summary
