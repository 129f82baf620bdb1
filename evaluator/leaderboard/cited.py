"""Published numbers from a YAML file: every row says its source, and no rank is computed for it.

```yaml
rows:
  - name: SD 2.1 (paper)
    source: Rombach et al. 2022, table 2, https://arxiv.org/abs/2112.10752
    protocol: COCO 2014, 30,000 captions, DDIM 50 steps, guidance 3   # optional, as are those below
    n: 30000
    values: {fid: 12.6, clip_score: 31.2}
    intervals: {clip_score: [31.0, 31.4]}   # as the source states them
    level: 0.95                             # of these intervals
    notes: read off figure 5
```
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evaluator.aggregate.summary import is_real
from evaluator.errors import ConfigError
from evaluator.leaderboard.made_with import count, shortly, text
from evaluator.leaderboard.records import Citation, Interval
from evaluator.text import count_of

FIELDS = ("name", "source", "values", "protocol", "n", "intervals", "level", "notes")
"""What a row may have; the first three it must."""

NEEDED = FIELDS[:3]

WORDS = {
    "name": "a name",
    "source": "where it was published, such as 'Podell et al. 2023, table 2'",
    "values": "numbers by metric, such as {fid: 12.6}",
}


@dataclass(frozen=True, slots=True)
class CitedRow:
    """One row of a citation file."""

    name: str
    citation: Citation
    values: Mapping[str, float]
    """Name of a metric → its number."""
    intervals: Mapping[str, Interval]
    n: int | None


def read_citations(path: Path) -> tuple[CitedRow, ...]:
    """The rows of a citation file; ConfigError lists every fault with its path in the file."""
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: expected a citation file (YAML), got nothing there. Check the path."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"{path}: expected a UTF-8 text file, got: {said}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: expected YAML, got: {error}") from error
    rows = record.get("rows") if isinstance(record, Mapping) else None
    if not isinstance(rows, list) or not rows:
        found = "an empty file" if record is None else type(record).__name__
        if isinstance(record, Mapping):
            found = f"the keys {', '.join(map(str, record)) or 'of nothing'}"
        raise ConfigError(
            f"{path}: expected 'rows:' with a list of rows, each with name, source and values, "
            f"got {found}."
        )
    faults = [f"{key}: unknown key; expected 'rows' alone" for key in record if key != "rows"]
    names: set[str] = set()
    for i, row in enumerate(rows):
        faults += [f"rows.{i}{fault}" for fault in _faults(row, names)]
    if faults:
        count = count_of(len(faults), "fault")
        raise ConfigError(f"{path}: the citation file has {count}:", tuple(faults))
    return tuple(_row(row) for row in rows)


def _faults(row: Any, names: set[str]) -> Iterator[str]:
    """What is wrong with a row; `names` are those of the rows before it."""
    if not isinstance(row, Mapping):
        yield f": expected name, source and values, got {shortly(row)}"
        return
    for key in row:
        if key not in FIELDS:
            near = difflib.get_close_matches(str(key), FIELDS, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(FIELDS)}"
            yield f".{key}: unknown key; {hint}"
    for key in NEEDED:
        if row.get(key) in (None, "", {}):
            yield f".{key}: expected {WORDS[key]}, got none"
    for key in ("name", "source", "protocol", "notes"):
        if row.get(key) not in (None, "") and text(row[key]) is None:
            yield f".{key}: expected text, got {shortly(row[key])}; put it in quotes"
    name = row.get("name")
    if isinstance(name, str):
        if name in names:
            yield f".name: expected a name of its own, got '{name}' again"
        names.add(name)
    n = row.get("n")
    if n is not None and (count(n) or 0) < 1:
        yield f".n: expected a whole number of at least 1, got {shortly(n)}"
    level = row.get("level")
    if level is not None and not (is_real(level) and 0 < level < 1):
        yield f".level: expected a number between 0 and 1, such as 0.95, got {shortly(level)}"
    yield from _faults_of_numbers(row)


def _faults_of_numbers(row: Mapping[str, Any]) -> Iterator[str]:
    values, intervals = row.get("values"), row.get("intervals")
    if values not in (None, "", {}) and not isinstance(values, Mapping):
        yield f".values: expected {WORDS['values']}, got {shortly(values)}"
        return
    for metric, value in (values or {}).items():
        if text(metric) is None:
            yield f".values: expected the name of a metric, got {shortly(metric)}; put it in quotes"
        elif not is_real(value):
            hint = "; write 1.0e-4, not 1e-4" if _as_text(value) else ""
            yield f".values.{metric}: expected a number, got {shortly(value)}{hint}"
    if intervals is not None and not isinstance(intervals, Mapping):
        yield f".intervals: expected [low, high] by metric, got {shortly(intervals)}"
        return
    for metric, ends in (intervals or {}).items():
        where = f".intervals.{metric}"
        if metric not in (values or {}):
            near = difflib.get_close_matches(str(metric), [str(v) for v in values or {}], n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            yield f"{where}: expected a metric of 'values'{hint}"
        elif not (isinstance(ends, list) and len(ends) == 2 and all(is_real(e) for e in ends)):
            yield f"{where}: expected [low, high], got {shortly(ends)}"
        elif not ends[0] <= ends[1]:
            yield f"{where}: expected the lower end first, got {shortly(ends)}"


def _as_text(value: Any) -> bool:
    """Whether it is a number that YAML took for text."""
    try:
        return isinstance(value, str) and bool(float(value) + 1)
    except ValueError:
        return False


def _row(row: Mapping[str, Any]) -> CitedRow:
    level = float(row.get("level") or 0.95)
    intervals = {
        metric: Interval(float(low), float(high), level, "as the source states it")
        for metric, (low, high) in (row.get("intervals") or {}).items()
    }
    values = {metric: float(value) for metric, value in row["values"].items()}
    citation = Citation(row["source"], row.get("protocol") or "", row.get("notes") or "")
    return CitedRow(row["name"], citation, values, intervals, row.get("n"))
