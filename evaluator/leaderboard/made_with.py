"""What a run was made with: settings and provenance, as its `init/` tells them, or None."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from evaluator.aggregate.summary import is_real, is_text
from evaluator.leaderboard.records import Provenance
from evaluator.text import without_secrets

MAX_SETTINGS = 1_000
"""Settings of one configuration that are looked at."""

MAX_NESTED = 5
"""How deep a configuration is looked into: YAML may refer to itself."""

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def shortly(value: Any) -> str:
    """A value of YAML in few characters, however deep it refers to itself."""
    return _SHORT.repr(value)


def provenance_of(config: Mapping[str, Any], record: Mapping[str, Any]) -> Provenance:
    """From config.yaml and provenance.json; images have no settings of generation."""
    asked, generation = mapping(config.get("model")), mapping(config.get("generation"))
    made, versions = mapping(record.get("model")), mapping(record.get("versions"))
    kind = text(made.get("kind")) or text(asked.get("kind"))
    source = mapping(config.get("prompts")).get("source")
    model = text(made.get("id")) or text(asked.get("id"))
    if kind == "images":
        model, generation = text(source), {}
    scheduler = asked.get("scheduler")
    named = scheduler.get("name") if isinstance(scheduler, Mapping) else scheduler
    return Provenance(
        kind=kind,
        model=model,
        revision=text(made.get("revision")) or text(asked.get("revision")),
        weights=text(made.get("weights_sha256")) or text(made.get("fingerprint")),
        scheduler=text(made.get("scheduler")) or text(named),
        steps=count(generation.get("steps")),
        guidance_scale=real(generation.get("guidance_scale")),
        height=count(generation.get("height")),
        width=count(generation.get("width")),
        dtype=text(made.get("dtype")) or text(asked.get("dtype")),
        images_per_prompt=count(generation.get("images_per_prompt")),
        seed=count(generation.get("seed")),
        prompts=text(mapping(record.get("prompts")).get("fingerprint")),
        evaluator=text(versions.get("evaluator")),
    )


def name_of(config: Mapping[str, Any], path: Path) -> str:
    """The run's name, and how many prompts it was limited to."""
    name = text(config.get("name")) or path.resolve().name
    limit = count(mapping(config.get("prompts")).get("limit"))
    what = "images" if mapping(config.get("model")).get("kind") == "images" else "prompts"
    return name if limit is None else f"{name}, the first {limit:,} {what}"


def settings_apart(configs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each configuration, the settings of model and generation that are not the same in all.

    What is off or empty counts as not set; what is secret is told nowhere.
    """
    flat = [
        mapping(without_secrets(dict(islice(_leaves(_sections(c), ""), MAX_SETTINGS))))
        for c in configs
    ]
    paths = {path: None for each in flat for path in each}
    apart = [p for p in paths if len({repr(each.get(p)) for each in flat}) > 1]
    return [{path: each.get(path) for path in apart} for each in flat]


def _sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that make samples; images that exist already were not generated here."""
    model = config.get("model")
    if mapping(model).get("kind") == "images":
        return {"model": model}
    return {"model": model, "generation": config.get("generation")}


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if path.count(".") >= MAX_NESTED:
            return
        for name, inner in value.items():
            if text(name):
                yield from _leaves(inner, f"{path}.{name}" if path else name)
    elif text(value) or value is True or is_real(value):
        yield path, value
    elif value not in (None, False, [], ""):
        yield path, shortly(value) if not isinstance(value, int) else "too large a number"


def mapping(value: Any) -> Mapping[str, Any]:
    """The value, or an empty mapping where it is none."""
    return value if isinstance(value, Mapping) else {}


def text(value: Any) -> str | None:
    """The value, or None where it is no text, or empty, or nothing that a file can hold."""
    return value if isinstance(value, str) and value and is_text(value) else None


def real(value: Any) -> float | None:
    """The value, or None where it is no finite number."""
    return float(value) if is_real(value) else None


def count(value: Any) -> int | None:
    """The value, or None where it is no whole number of 64 bits."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and -(2**63) <= value < 2**63 else None
