"""What each number answers: two values stand in one ranking only if they answer the same question.

A question is the metric with its options, the extractor's fingerprint, the content of the
reference, and the prompts. The names that a configuration gives to references are no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from evaluator.aggregate.summary import MetricRecord
from evaluator.config.asked import MetricConfig
from evaluator.errors import ConfigError
from evaluator.leaderboard.collect import ReadRun
from evaluator.leaderboard.made_with import count, mapping, text
from evaluator.metrics.catalog import quantity_of, resolve
from evaluator.text import without_secrets

UNKNOWN = "unknown"
"""Content of a reference that the run does not tell."""


@dataclass(frozen=True, slots=True)
class Question:
    """All that values must share to be ranked together, but for the number of samples."""

    metric: str
    extractor: str | None
    fingerprint: str | None
    reference: str | None
    """Fingerprint of the reference's content, or `unknown` with its name."""
    reference_n: int | None
    held_out: str | None
    """Fingerprint of the held-out set's content."""
    options: str
    """JSON of the metric's options, defaults included; what is secret sets no question apart."""
    prompts: str | None
    """Fingerprint of the prompts; None where the images were made elsewhere."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One number of one run, and its question."""

    run: int
    """Place of the run."""
    question: Question
    record: MetricRecord
    reference: str | None
    """What the run calls the reference."""
    options: Mapping[str, Any]
    """Options that the configuration set, without secrets."""


class SameQuantity(NamedTuple):
    """What columns share that speak of one quantity, however they estimate it."""

    names: tuple[str, ...]
    """Names of the estimates; the one of the least noise first."""
    about: tuple[object, ...]
    """Extractor, fingerprint, reference and prompts; options where one metric gives them all."""


def same_quantity(question: Question) -> SameQuantity:
    """The quantity that a question is about."""
    q, found = question, quantity_of(question.metric, question.extractor)
    about = (q.extractor, q.fingerprint, q.reference, q.reference_n, q.held_out, q.prompts)
    alone = len(found.names) == 1 or found.one_metric
    return SameQuantity(found.names, (*about, q.options) if alone else about)


def answers_of(run: ReadRun, place: int) -> list[Answer]:
    """Each number of a run with its question, those of groups too, in the order of metrics.json."""
    asked = _Asked(run.request)
    contents = mapping(run.request.get("references"))
    prompts = None if run.provenance.kind == "images" else run.provenance.prompts
    found = []
    for record in run.metrics:
        names = mapping(record.reference)
        called = text(names.get("name"))
        given, options = asked.take(record)
        question = Question(
            metric=record.name,
            extractor=record.extractor,
            fingerprint=record.fingerprint,
            reference=_content(contents, called),
            reference_n=count(names.get("n")),
            held_out=_content(contents, text(names.get("held_out"))),
            options=json.dumps(without_secrets(dict(options)), sort_keys=True, default=str),
            prompts=prompts,
        )
        told = mapping(without_secrets(dict(given)))
        found.append(Answer(place, question, record, called, told))
    return found


def _content(contents: Mapping[str, Any], name: str | None) -> str | None:
    """One fingerprint of all that a reference is made from."""
    if name is None:
        return None
    content = contents.get(name)
    if not isinstance(content, Mapping) or not content:
        return f"{UNKNOWN} ({name})"
    if set(content) == {"source"}:
        return str(content["source"])
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


class _Asked:
    """Which entry of the configuration each number comes from: both are in the same order."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._waiting: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
        self._current: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        entries = request.get("metrics")
        for entry in entries if isinstance(entries, list) else []:
            for name, given, options in _results(entry):
                self._waiting.setdefault(name, []).append((given, options))

    def take(self, record: MetricRecord) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Options that were set, and all of them; groups follow the number of all samples."""
        waiting = self._waiting.get(record.name)
        if record.group is None and waiting:
            self._current[record.name] = waiting.pop(0)
        return self._current.get(record.name, ({}, {}))


def _results(entry: Any) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Name of each number that an entry gives, the options it sets, and all options."""
    try:
        metric = MetricConfig.model_validate(entry)
        plan = resolve(metric.name, metric.extractor, metric.options)
    except ConfigError:  # a metric of the user's own
        yield metric.name.rpartition(":")[2], metric.options, metric.options
    except (ValidationError, TypeError, ValueError):
        return
    else:
        for name in plan.result_names:
            yield name, metric.options, plan.options
