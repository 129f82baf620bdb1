"""What metrics.json holds: every number of a run, and how much of the run it stands on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
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
    replicates: dict[str, Any] | None = field(default=None, repr=False)
    """The jackknife behind the interval (`value`, `left_out`, `sizes`, `extra_variance`): runs on
    the same samples are compared by it. None of other numbers, and of groups."""

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> MetricRecord:
        """The inverse of `asdict`; raises TypeError or ValueError where it is no number of ours.

        The file may have been edited, or be another's: the types are looked at.
        """
        metric = cls(**record)
        if not _is_sound(metric):
            raise ValueError("expected a number with its name, counts and interval")
        return metric


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
        """The inverse of `record`; raises KeyError, TypeError or ValueError on anything else."""
        counts = Counts(**record["samples"])
        if not all(is_count(count) for count in counts):
            raise ValueError("samples: expected whole numbers")
        return cls(
            counts,
            tuple(MetricRecord.from_record(metric) for metric in record["metrics"]),
            tuple(record["sample_errors"]),
            record.get("request"),
        )


def is_real(value: Any) -> bool:
    """Whether it is a finite number that a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_count(value: Any) -> bool:
    """Whether it is a whole number from 0, of 63 bits at most."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_sound(metric: MetricRecord) -> bool:
    """Whether all types are those of a number of ours."""
    return (
        metric.name is not None
        and _are_texts((metric.name,))
        and (metric.value is None or is_real(metric.value))
        and is_count(metric.n)
        and is_count(metric.n_expected)
        and metric.higher_is_better in (True, False, None)
        and _are_texts((metric.extractor, metric.fingerprint))
        and (metric.reference is None or _is_reference(metric.reference))
        and (metric.group is None or _is_group(metric.group))
        and isinstance(metric.warnings, list)
        and _are_texts(metric.warnings)
        and isinstance(metric.details, Mapping)
        and isinstance(metric.replicates, Mapping | None)
        and (metric.interval is None or _is_interval(metric.interval))
    )


def _are_texts(values: Iterable[Any]) -> bool:
    """Whether each is None or text that a file can hold: half a surrogate pair is none."""
    return all(each is None or (isinstance(each, str) and is_text(each)) for each in values)


def is_text(value: str) -> bool:
    """Whether UTF-8 has it: JSON and YAML may hold half a surrogate pair, which it has not."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_reference(reference: Any) -> bool:
    if not isinstance(reference, Mapping):
        return False
    n = reference.get("n")
    return _are_texts((reference.get("name"), reference.get("held_out"))) and (
        n is None or is_count(n)
    )


def _is_group(group: Any) -> bool:
    return isinstance(group, Mapping) and _are_texts((*group, *group.values()))


def _is_interval(interval: Any) -> bool:
    return (
        isinstance(interval, Mapping)
        and _are_texts((interval.get("method"), interval.get("covers")))
        and all(is_real(interval.get(end)) for end in ("low", "high", "level"))
        and interval["low"] <= interval["high"]
        and 0 < interval["level"] < 1
    )
