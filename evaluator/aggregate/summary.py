"""What metrics.json holds: every number of a run, and how much of the run it stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

FORMAT = 1
"""Version of metrics.json."""

MAX_ERROR_LINES = 20
"""Sample errors that are shown one by one; the count says how many there are."""


class Counts(NamedTuple):
    """How much of the plan is there."""

    planned: int
    committed: int
    errors: int
    truncated: int
    black: int = 0
    """Images of which every pixel is 0; they are judged as any other."""
    non_finite: int = 0
    """Of the errors: those where the model gave NaN or infinity."""


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """One number in metrics.json."""

    name: str
    value: float | None
    n: int
    n_expected: int
    higher_is_better: bool | None
    interval: dict[str, Any] | None
    extractor: str | None
    fingerprint: str | None
    reference: dict[str, Any] | None
    warnings: list[str]
    details: dict[str, float] = field(default_factory=dict)
    group: dict[str, str] | None = None
    """Tag and value of the samples that the number is about; None: all of them."""
    replicates: dict[str, Any] | None = None
    """The jackknife behind the interval (`value`, `left_out`, `sizes`, `extra_variance`): runs on
    the same samples are compared by it. None of other numbers, and of groups."""


@dataclass(frozen=True, slots=True)
class Summary:
    """All numbers of a run, and how much of the run they stand on."""

    counts: Counts
    metrics: tuple[MetricRecord, ...]
    error_lines: tuple[str, ...] = ()
    """The first samples with an error, and why."""
    request: str | None = None
    """Digest of what was asked: other numbers answer another request."""

    @property
    def complete(self) -> bool:
        """Whether every planned sample is committed."""
        return self.counts.committed == self.counts.planned

    @property
    def exit_status(self) -> int:
        """0 all there, 1 something failed for good, 3 incomplete."""
        if not self.complete:
            return 3
        failed = self.counts.errors or any(metric.value is None for metric in self.metrics)
        return 1 if failed else 0

    def record(self) -> dict[str, Any]:
        """What metrics.json holds."""
        return {
            "format": FORMAT,
            "complete": self.complete,
            "samples": self.counts._asdict(),
            "metrics": [asdict(metric) for metric in self.metrics],
            "sample_errors": list(self.error_lines),
            "request": self.request,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Summary:
        """The inverse of `record`; raises KeyError or TypeError on anything else."""
        return cls(
            Counts(**record["samples"]),
            tuple(MetricRecord(**metric) for metric in record["metrics"]),
            tuple(record["sample_errors"]),
            record.get("request"),
        )
