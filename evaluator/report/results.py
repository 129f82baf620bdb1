"""The numbers of metrics.json, as the page, the terminal and the exported tables show them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evaluator.aggregate.stored import read_numbers
from evaluator.aggregate.summary import is_count, is_real
from evaluator.errors import NumbersError
from evaluator.report.text import decimals, formula_safe, number, plain

CSV_HEADER = (
    "metric", "value", "direction", "low", "high", "level", "interval", "n", "n_expected",
    "extractor", "fingerprint", "reference", "reference_n", "warnings",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval and what it is an interval of."""

    low: float
    high: float
    level: float
    meaning: str
    """What it covers and how it was found; empty when metrics.json does not say."""


@dataclass(frozen=True, slots=True)
class Result:
    """One number, and everything needed to believe it. All text is fit to show."""

    name: str
    """The number's name, and the group of samples that it is about: `fid [region=Africa]`."""
    value: float | None
    num: int | None
    num_expected: int | None
    higher_is_better: bool | None
    interval: Interval | None
    extractor: str
    fingerprint: str
    reference: str
    reference_num: int | None
    warnings: tuple[str, ...]
    details: tuple[tuple[str, float], ...]
    metric: str = ""
    """The name without the group."""
    group: tuple[tuple[str, str], ...] = ()
    """Tag and value; nothing for all samples."""

    @property
    def arrow(self) -> str:
        """↑ when more is better, ↓ when less is, nothing when neither."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]

    @property
    def direction(self) -> str:
        """The arrow in words."""
        words = {True: "higher is better", False: "lower is better", None: ""}
        return words[self.higher_is_better]

    @property
    def complete(self) -> bool:
        """Whether every expected sample is in the number."""
        return self.num is not None and self.num == self.num_expected

    @property
    def shown_value(self) -> str:
        """The value with about five significant digits."""
        return number(self.value)

    @property
    def shown_interval(self) -> str:
        """`low – high` with the decimals of the value."""
        if self.interval is None:
            return "—"
        places = decimals(self.value) if self.value is not None else None
        low, high = (number(x, places=places) for x in (self.interval.low, self.interval.high))
        return f"{low} – {high}"

    @property
    def shown_count(self) -> str:
        """`n / n expected`."""
        num, expected = ("?" if n is None else f"{n:,}" for n in (self.num, self.num_expected))
        return f"{num} / {expected}"

    @property
    def shown_extractor(self) -> str:
        """Name of the extractor and the first eight characters of its fingerprint."""
        return " ".join(part for part in (self.extractor, self.fingerprint[:8]) if part)

    @property
    def shown_reference(self) -> str:
        """Name of the reference and its number of samples."""
        if not self.reference:
            return ""
        return self.reference + (f" (n = {self.reference_num:,})" if self.reference_num else "")


class Metrics(NamedTuple):
    """What metrics.json says, or why it says nothing."""

    results: tuple[Result, ...]
    samples: Mapping[str, int]
    """planned, committed, errors, truncated when the numbers were computed."""
    trouble: str
    """Why there are no results; empty when there are."""


def read_metrics(run: Path) -> Metrics:
    """Read metrics.json of a run; what is wrong becomes a sentence, never an exception."""
    try:
        stored = read_numbers(run)
    except NumbersError as error:
        return Metrics((), {}, error.reason)
    results = parse_results(stored.entries)
    return Metrics(results, stored.samples, "" if results else "metrics.json lists no metric.")


def parse_results(metrics: Iterable[Any]) -> tuple[Result, ...]:
    """The `metrics` of metrics.json as results; entries that are no mapping are left out."""
    return tuple(_result(entry) for entry in metrics if isinstance(entry, Mapping))


def _result(entry: Mapping[str, Any]) -> Result:
    reference = entry.get("reference")
    reference = reference if isinstance(reference, Mapping) else {}
    better = entry.get("higher_is_better")
    details = entry.get("details")
    warnings = said if isinstance(said := entry.get("warnings"), list) else ()
    pairs = details.items() if isinstance(details, Mapping) else ()
    group = _group(entry.get("group"))
    return Result(
        name=plain(entry.get("name", "?")) + _in_words(group),
        value=_real(entry.get("value")),
        num=_count(entry.get("n")),
        num_expected=_count(entry.get("n_expected")),
        higher_is_better=better if isinstance(better, bool) else None,
        interval=_interval(entry.get("interval")),
        extractor=plain(entry.get("extractor") or ""),
        fingerprint=plain(entry.get("fingerprint") or ""),
        reference=plain(reference.get("name") or ""),
        reference_num=_count(reference.get("n")),
        warnings=tuple(plain(warning) for warning in warnings),
        details=tuple((plain(k), v) for k, x in pairs if (v := _real(x)) is not None),
        metric=plain(entry.get("name", "?")),
        group=group,
    )


def _group(entry: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(entry, Mapping):
        return ()
    return tuple((plain(tag), plain(value)) for tag, value in entry.items())


def _in_words(group: tuple[tuple[str, str], ...]) -> str:
    """` [tag=value]` for a group of samples; nothing for all of them."""
    return f" [{', '.join(f'{tag}={value}' for tag, value in group)}]" if group else ""


def _interval(entry: Any) -> Interval | None:
    if not isinstance(entry, Mapping):
        return None
    low, high = _real(entry.get("low")), _real(entry.get("high"))
    if low is None or high is None:
        return None
    level = _real(entry.get("level"))
    says = [plain(entry[name]) for name in ("covers", "method") if entry.get(name)]
    return Interval(low, high, 0.95 if level is None else level, ", ".join(says))


def _real(value: Any) -> float | None:
    return float(value) if is_real(value) else None


def _count(value: Any) -> int | None:
    return value if is_count(value) else None


def as_csv(results: Iterable[Result]) -> str:
    """Full precision, one line a metric; text cells cannot become formulas."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for r in results:
        interval = r.interval
        bounds = (interval.low, interval.high, interval.level) if interval else ("", "", "")
        cells: tuple[object, ...] = (
            r.name, r.value, r.direction, *bounds, interval.meaning if interval else "",
            r.num, r.num_expected, r.extractor, r.fingerprint, r.reference, r.reference_num,
            "; ".join(r.warnings),
        )  # fmt: skip
        writer.writerow([formula_safe(c) if isinstance(c, str) else c for c in cells])
    return out.getvalue()


def as_markdown(title: str, results: Iterable[Result], remarks: Iterable[str] = ()) -> str:
    """A Markdown document: the title, remarks, the table, and warnings as a list below it."""
    rows: list[str] = []
    notes: list[str] = []
    for r in results:
        name = f"{r.name} {r.arrow}".strip()
        numbers = (r.shown_value, r.shown_interval, r.shown_count)
        cells = (name, *numbers, r.shown_extractor, r.shown_reference)
        rows.append("| " + " | ".join(markdown_cell(cell) for cell in cells) + " |")
        notes.extend(f"- {markdown_cell(r.name)}: {markdown_cell(w)}" for w in r.warnings)
    lines = [f"# {markdown_cell(title)}", "", *(markdown_cell(r) for r in remarks), ""]
    if rows:
        lines += ["| metric | value | interval | n / expected | extractor | reference |",
                  "|---|--:|--:|--:|---|---|", *rows, ""]  # fmt: skip
    return "\n".join([*lines, *notes]).rstrip() + "\n"


def markdown_cell(text: str) -> str:
    """Text in a cell, or a line, of Markdown: its signs stay signs."""
    for character in "\\|<>*_`[]":
        text = text.replace(character, "\\" + character)
    return text
