"""What is asked of a run: metrics, the features they read, the references they compare with.

It may grow while the samples stay; `asked.json` holds what the last start asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from evaluator.config.asked import MetricConfig
from evaluator.config.schema import RunConfig
from evaluator.errors import ConfigError, RunDirectoryError
from evaluator.locations import CODE
from evaluator.metrics.catalog import MetricPlan, resolve
from evaluator.metrics.families import FAMILIES
from evaluator.plugins import find, is_known
from evaluator.store.rundir import RunDirectory


@dataclass(frozen=True, slots=True)
class CustomPlan:
    """A metric of the user's own: a class with the constructor `(dim, **options)`."""

    name: str
    extractor: str
    input: str
    """`features`, `logits`, or the column of a per-sample score."""
    reference: bool
    held_out: bool
    options: Mapping[str, Any]
    result_names: tuple[str, ...]

    def build(self, dim: int | None = None) -> Any:
        """Import the class and build the metric; `--allow-code` was checked before."""
        return find("metric", self.name, {}, allow_code=True)(dim=dim, **self.options)


@dataclass(frozen=True, slots=True)
class AskedMetric:
    """One metric and the reference it is computed against, if any."""

    plan: MetricPlan | CustomPlan
    reference: str | None
    held_out: str | None = None
    """The reference with real images that the model has not seen, if the metric takes one."""
    by: str | None = None
    """Tag whose values are groups of their own."""

    @property
    def takes_moments(self) -> bool:
        """Whether published moments will do for the reference."""
        family = FAMILIES.get(getattr(self.plan, "metric", ""))
        draws = self.plan.options.get("subsample_reference", False)
        return family is not None and family.takes_moments and not draws

    def compares_with(self, name: str) -> bool:
        """Whether it takes features of the reference `name`."""
        return name in (self.reference, self.held_out)


@dataclass(frozen=True, slots=True)
class ReferencePlace:
    """Where a reference lies, and what its features were computed with."""

    run: str | None
    """Its run directory; None where there are moments only."""
    moments: str | None
    """A file of published moments."""
    pack: str | None
    """The pack of its images, which knows what they were called."""
    fingerprints: Mapping[str, str]
    """Extractor name → fingerprint of its features."""


@dataclass(frozen=True, slots=True)
class AskedMetrics:
    """All metrics of a configuration."""

    metrics: tuple[AskedMetric, ...]

    @property
    def plans(self) -> list[MetricPlan | CustomPlan]:
        """The metrics without their references."""
        return [metric.plan for metric in self.metrics]

    def table_name(self, asked: AskedMetric, name: str) -> str:
        """What a metric's table of single samples is called: by its first result, `name`.

        With its reference, and a number, where it is asked for repeatedly.
        """
        first = asked.plan.result_names[0]
        alike = [m for m in self.metrics if m.plan.result_names[0] == first]
        if len(alike) < 2:
            return name
        against = [m for m in alike if m.reference == asked.reference]
        parts = [name, *([asked.reference] if asked.reference else [])]
        parts += [str(against.index(asked) + 1)] if len(against) > 1 else []
        return "-".join(parts)


def asked_metrics(config: RunConfig) -> AskedMetrics:
    """Resolve the metrics of a configuration; raises ConfigError with every fault."""
    return _resolve(config.metrics, tuple(config.references))


def _resolve(metrics: tuple[MetricConfig, ...], references: tuple[str, ...]) -> AskedMetrics:
    faults: list[str] = []
    resolved: list[AskedMetric] = []
    for metric in metrics:
        try:
            plan = _plan(metric)
        except ConfigError as error:
            faults.append(f"metrics: {error}")
            continue
        try:
            if metric.held_out is not None and not plan.held_out:
                raise ConfigError(
                    f"metrics: '{metric.name}' compares with no held-out set, got held_out: "
                    f"{metric.held_out}; remove it, or name it as 'reference'"
                )
            reference = _reference_of(metric, references) if plan.reference else None
            held_out = _held_out_of(metric) if plan.held_out else None
        except ConfigError as error:
            faults.append(str(error))
            continue
        resolved.append(AskedMetric(plan, reference, held_out, metric.by))
    if faults:
        raise ConfigError("the metrics cannot be computed as asked:", tuple(faults))
    return AskedMetrics(tuple(resolved))


def _reference_of(metric: MetricConfig, references: tuple[str, ...]) -> str:
    """The reference that a metric names, or the only one there is."""
    others = [name for name in references if name != metric.held_out]
    if metric.reference is None and len(others) != 1:
        beside = " beside the held-out set" if metric.held_out is not None else ""
        raise ConfigError(
            f"metrics: '{metric.name}' compares with a reference; expected one under "
            f"'references'{beside} (or its name as 'reference'), got {', '.join(others) or 'none'}"
        )
    return metric.reference or others[0]


def _held_out_of(metric: MetricConfig) -> str:
    if metric.held_out is None:
        raise ConfigError(
            f"metrics: '{metric.name}' needs real images that the model was not trained on beside "
            "the training set; expected a reference's name as 'held_out', got none"
        )
    return metric.held_out


def _plan(metric: MetricConfig) -> MetricPlan | CustomPlan:
    if not (CODE.match(metric.name) or is_known("metric", metric.name, {})):
        return resolve(metric.name, metric.extractor, metric.options)
    if metric.extractor is None:
        raise ConfigError(f"'{metric.name}': expected an extractor to take features of, got none")
    options = dict(metric.options)
    wanted = str(options.pop("input", "features"))
    names = (metric.name.rpartition(":")[2],)
    sides = metric.reference is not None, metric.held_out is not None
    return CustomPlan(metric.name, metric.extractor, wanted, *sides, options, names)


def request_digest(request: Mapping[str, Any]) -> str:
    """SHA-256 of what a configuration asks, with the content of its references."""
    return hashlib.sha256(json.dumps(dict(request), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the last start asked of a run, with all that is needed to compute it again."""

    metrics: tuple[MetricConfig, ...]
    fingerprints: Mapping[str, str]
    """Extractor name → fingerprint of its features in this run."""
    references: Mapping[str, ReferencePlace]
    """Reference name → where it lies."""
    request: Mapping[str, Any]
    """The sections of the configuration that asked, with the references' content."""

    def resolved(self) -> AskedMetrics:
        """The metrics, looked up."""
        return _resolve(self.metrics, tuple(self.references))

    def to_json(self) -> str:
        """One JSON object."""
        record = {
            "metrics": [metric.model_dump(mode="json") for metric in self.metrics],
            "fingerprints": dict(self.fingerprints),
            "references": {name: asdict(place) for name, place in self.references.items()},
            "request": dict(self.request),
        }
        return json.dumps(record, indent=1, sort_keys=True)

    def write(self, run: RunDirectory) -> None:
        """Keep it as `asked.json`."""
        run.write("asked.json", self.to_json().encode())

    @classmethod
    def read(cls, run: RunDirectory) -> Asked:
        """What was asked last; raises RunDirectoryError when nothing was yet."""
        try:
            record = json.loads((run.path / "asked.json").read_bytes())
            metrics = tuple(MetricConfig.model_validate(metric) for metric in record["metrics"])
            places = {n: ReferencePlace(**place) for n, place in record["references"].items()}
            return cls(metrics, dict(record["fingerprints"]), places, dict(record["request"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunDirectoryError(
                f"{run.path}: expected asked.json, which `run` writes when all samples are there, "
                f"got {error}. Run the same `evaluator run` command again."
            ) from error
