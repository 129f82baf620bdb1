"""metrics.json as it lies in a run: the one place that reads it, and says why it cannot be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluator.aggregate.summary import FORMAT, MetricRecord, Summary, is_count
from evaluator.errors import NumbersError
from evaluator.text import plain

NAME = "metrics.json"

_AGAIN = "`evaluator aggregate RUN` computes the numbers from the tables."


@dataclass(frozen=True, slots=True)
class StoredNumbers:
    """A record of ours, of a format that is known; what it lists is not looked at yet."""

    folder: Path
    """The run's directory."""
    record: Mapping[str, Any]

    @property
    def entries(self) -> list[Any]:
        """The numbers as they stand there; any of them may be damaged."""
        entries: list[Any] = self.record["metrics"]
        return entries

    @property
    def samples(self) -> dict[str, int]:
        """`planned`, `committed`, `errors`, …, as far as they are counts."""
        samples = self.record.get("samples")
        counts = samples.items() if isinstance(samples, Mapping) else ()
        return {name: count for name, count in counts if is_count(count)}

    def sound(self) -> list[MetricRecord]:
        """The entries that are what they should be."""
        found = []
        for entry in self.entries:
            try:
                found.append(MetricRecord.from_record(entry))
            except (TypeError, ValueError):
                continue
        return found

    def summary(self) -> Summary:
        """All of it; NumbersError where any part is not what it should be."""
        try:
            return Summary.from_record(self.record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _foreign(self.folder, repr(error)) from error


def read_numbers(folder: Path) -> StoredNumbers:
    """metrics.json of a run directory; NumbersError where it is missing, damaged or another's."""
    try:
        record = json.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        raise NumbersError(
            folder,
            f"{NAME}: expected numbers, got no such file: this run has not been aggregated yet. "
            "The same `evaluator run`, or `evaluator aggregate RUN`, computes them.",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        said = plain(getattr(error, "strerror", None) or error, limit=120)
        raise NumbersError(
            folder, f"{NAME}: expected numbers, got a file that cannot be read ({said}). {_AGAIN}"
        ) from error
    known = record if isinstance(record, Mapping) else {}
    found: Any = known.get("format")
    if is_count(found) and found > FORMAT:
        raise NumbersError(
            folder,
            f"{NAME}: expected format {FORMAT} or older, got {found}. Use the evaluator that "
            "wrote it.",
        )
    if not is_count(found) or not isinstance(known.get("metrics"), list):
        raise _foreign(folder, "expected its format and a list of metrics")
    return StoredNumbers(folder, known)


def stored_summary(folder: Path) -> Summary | None:
    """What metrics.json of a run says; None where it cannot be had."""
    try:
        return read_numbers(folder).summary()
    except NumbersError:
        return None


def _foreign(folder: Path, why: str) -> NumbersError:
    return NumbersError(
        folder,
        f"{NAME}: expected numbers, got a file that does not hold them ({plain(why, limit=120)}). "
        f"{_AGAIN}",
    )
