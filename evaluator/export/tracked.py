"""One run as experiment trackers take it: settings, scalars with their intervals, some images."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluator.aggregate.summary import MetricRecord
from evaluator.errors import EvaluatorError
from evaluator.export.json_tables import plain_value
from evaluator.export.options import NUM_IMAGES, ExportOptions
from evaluator.export.published import made_at, remarks
from evaluator.export.tidy import result_row
from evaluator.runs import Run
from evaluator.runs.display import title
from evaluator.runs.images import keeps_images
from evaluator.text import plain, without_secrets


@dataclass(frozen=True, slots=True)
class TrackedImage:
    """One kept image."""

    name: str
    """Key and image index."""
    caption: str
    """Its prompt, fit to show."""
    png: str
    """The file, base64."""

    @property
    def content(self) -> bytes:
        """The file."""
        return base64.b64decode(self.png)


@dataclass(frozen=True, slots=True)
class Tracked:
    """One run for a tracker; all text is fit to show, and settings hold no secret."""

    name: str
    identity: str
    """The same for the same run, wherever and how often it is exported."""
    made_at: str | None
    """ISO 8601, UTC."""
    config: dict[str, Any]
    """Configuration, provenance, and when the run was started, nested."""
    scalars: dict[str, float]
    """`fid`, `fid/low`, `fid/high`, `fid/n`."""
    rows: list[dict[str, Any]]
    """The numbers, as in results.json."""
    notes: dict[str, str]
    """Number → its counts, interval, extractor and warnings in words."""
    images: list[TrackedImage] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Tracked:
        """The inverse of `record`."""
        images = [TrackedImage(**image) for image in record["images"]]
        return cls(**{**record, "images": images})

    def settings(self) -> dict[str, str | int | float | bool]:
        """The configuration as flat names: `generation.steps`."""
        return dict(_leaves(self.config, ""))


def tracked(name: str, run: Run, options: ExportOptions) -> Tracked:
    """What a tracker gets of a run; raises where it has no numbers."""
    named = _named(run.metrics)
    wanted = NUM_IMAGES if options.images is None else options.images
    return Tracked(
        name=plain(name, limit=120),
        identity=identity_of(name, run),
        made_at=made_at(run),
        config=_config(run),
        scalars=dict(_scalars(named)),
        rows=[_plain_text(plain_value(result_row(metric))) for metric in named.values()],
        notes={called: remarks(metric) for called, metric in named.items()},
        images=list(_images(run, wanted)),
    )


def _named(metrics: tuple[MetricRecord, ...]) -> dict[str, MetricRecord]:
    """Name → number; the reference tells two of one name apart."""
    named: dict[str, MetricRecord] = {}
    for metric in metrics:
        called = title(metric)
        if called in named:
            called = plain(f"{called} against {(metric.reference or {}).get('name')}")
        while called in named:
            called += "'"
        named[called] = metric
    return named


def _scalars(named: Mapping[str, MetricRecord]) -> Iterator[tuple[str, float]]:
    for called, metric in named.items():
        if metric.value is None:
            continue
        yield called, metric.value
        for bound in ("low", "high"):
            if (metric.interval or {}).get(bound) is not None:
                yield f"{called}/{bound}", float((metric.interval or {})[bound])
        yield f"{called}/n", float(metric.n)


def identity_of(name: str, run: Run) -> str:
    """By name, configuration and plan: the same wherever, and how often, a run is exported."""
    digest = hashlib.sha256(name.encode())
    for part in ("config.yaml", "plan.parquet"):
        digest.update(run.directory.init_file(part))
    return digest.hexdigest()[:16]


def _config(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = {"samples": len(run), "samples_expected": run.num_planned}
    found["started"] = made_at(run)
    for name, part in (("config", "config"), ("provenance", "provenance")):
        try:
            found[name] = getattr(run, part)
        except EvaluatorError as error:
            found[name] = {"unreadable": plain(error)}
    shown = without_secrets(json.loads(json.dumps(plain_value(found))))
    flat: dict[str, Any] = _plain_text(shown)
    return flat


def _plain_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {plain(name): _plain_text(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain_text(inner) for inner in value]
    return plain(value) if isinstance(value, str) else value


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str | int | float | bool]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, str | int | float | bool):
        yield name, value
    elif value is not None:
        yield name, json.dumps(value, ensure_ascii=False)


def _images(run: Run, count: int) -> Iterator[TrackedImage]:
    """The first kept images, in the order of the plan."""
    if count < 1 or not keeps_images(run.directory):
        return
    keys, prompts = run.samples.column("key").to_pylist(), run.samples.column("prompt").to_pylist()
    said = dict(zip(keys, prompts, strict=True))
    for shown, (key, index, image) in enumerate(run.images()):
        if shown == count:
            return
        out = io.BytesIO()
        image.save(out, "PNG")
        caption = plain(said.get(key) or "", limit=300)
        yield TrackedImage(f"{key}-{index}", caption, base64.b64encode(out.getvalue()).decode())
