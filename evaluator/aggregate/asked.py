"""What is asked of a run: metrics, the features they read, the references they compare with.

It may grow while the samples stay; `asked.json` holds what the last start asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluator.config.schema import MetricConfig, RunConfig
from evaluator.errors import ConfigError, RunDirectoryError
from evaluator.locations import CODE
from evaluator.metrics.catalog import MetricPlan, resolve
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


@dataclass(frozen=True, slots=True)
class AskedMetrics:
    """All metrics of a configuration."""

    metrics: tuple[AskedMetric, ...]

    @property
    def plans(self) -> list[MetricPlan | CustomPlan]:
        """The metrics without their references."""
        return [metric.plan for metric in self.metrics]


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
        reference = metric.reference
        if plan.reference and reference is None:
            if len(references) != 1:
                got = ", ".join(references) or "none"
                faults.append(
                    f"metrics: '{metric.name}' compares with a reference; expected one under "
                    f"'references' (or its name as 'reference'), got {got}"
                )
                continue
            reference = references[0]
        resolved.append(AskedMetric(plan, reference if plan.reference else None))
    if faults:
        raise ConfigError("the metrics cannot be computed as asked:", tuple(faults))
    return AskedMetrics(tuple(resolved))


def _plan(metric: MetricConfig) -> MetricPlan | CustomPlan:
    if not (CODE.match(metric.name) or is_known("metric", metric.name, {})):
        return resolve(metric.name, metric.extractor, metric.options)
    if metric.extractor is None:
        raise ConfigError(f"'{metric.name}': expected an extractor to take features of, got none")
    options = dict(metric.options)
    wanted = str(options.pop("input", "features"))
    names = (metric.name.rpartition(":")[2],)
    return CustomPlan(
        metric.name, metric.extractor, wanted, metric.reference is not None, options, names
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """What the last start asked of a run, with all that is needed to compute it again."""

    metrics: tuple[MetricConfig, ...]
    fingerprints: Mapping[str, str]
    """Extractor name → fingerprint of its features in this run."""
    references: Mapping[str, str]
    """Reference name → run directory."""
    reference_fingerprints: Mapping[str, str]
    """Extractor name → fingerprint of its features in the references."""
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
            "references": dict(self.references),
            "reference_fingerprints": dict(self.reference_fingerprints),
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
            return cls(
                metrics,
                record["fingerprints"],
                record["references"],
                record["reference_fingerprints"],
                record["request"],
            )
        except (OSError, ValueError, KeyError) as error:
            raise RunDirectoryError(
                f"{run.path}: expected asked.json, which `run` writes when all samples are there, "
                f"got {error}. Run the same `evaluator run` command again."
            ) from error
