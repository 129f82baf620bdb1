"""Results in a terminal: one aligned line a metric, its warnings beneath."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from evaluator.report.results import Result, parse_results
from evaluator.report.text import decimals, number

_TITLES = ("metric", "value", "interval", "n / expected", "extractor")
_RIGHT = (False, True, True, True, False)
GAP = 2
"""Spaces between columns."""
_GAP = " " * GAP


def results_table(metrics: Sequence[Mapping[str, Any]], *, width: int | None = None) -> str:
    """The `metrics` of metrics.json as plain text.

    Holds no escape sequence, whatever the names and warnings hold. Narrower than the table,
    `width` drops the extractor, then wraps only the warnings; None means as wide as it takes.
    """
    results = parse_results(metrics)
    if not results:
        return "no metrics"
    titles = (*_TITLES[:2], _interval_title(results), *_TITLES[3:])
    several = len({result.reference for result in results if result.reference}) > 1
    rows = [titles, *(_cells(result, against=several) for result in results)]
    widths = [max(columns_of(row[i]) for row in rows) for i in range(len(titles))]
    if width is not None and sum(widths) + len(_GAP) * (len(widths) - 1) > width:
        widths = widths[:-1]
    lines = [_line(titles, widths), _GAP.join("─" * w for w in widths)]
    for i, row in enumerate(rows[1:]):
        lines.append(_line(row, widths))
        for warning in _warnings_beneath(results, i):
            lines += textwrap.wrap(
                warning,
                max(24, width or 100),
                initial_indent="  ! ",
                subsequent_indent="    ",
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def aligned(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    beneath: Sequence[Sequence[str]],
    *,
    width: int = 100,
) -> str:
    """Columns of text under their titles, and the lines that belong beneath each row.

    Those are wrapped at `width`.
    """
    widths = [max(columns_of(line[i]) for line in (titles, *rows)) for i in range(len(titles))]
    lines = [_padded(titles, widths), _GAP.join("─" * w for w in widths)]
    for row, notes in zip(rows, beneath, strict=True):
        lines.append(_padded(row, widths))
        for note in notes:
            lines += textwrap.wrap(
                note, min(width, 100), initial_indent="  ! ", subsequent_indent="    ",
                break_on_hyphens=False,
            )  # fmt: skip
    return "\n".join(lines)


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (w - columns_of(cell)) for cell, w in zip(cells, widths, strict=True))
    return _GAP.join(padded).rstrip()


def _warnings_beneath(results: Sequence[Result], index: int) -> list[str]:
    """The warnings to show beneath a line: one that the next line shares waits for that."""
    shown = []
    for warning in results[index].warnings:
        if index + 1 < len(results) and warning in results[index + 1].warnings:
            continue
        first = index
        while first > 0 and warning in results[first - 1].warnings:
            first -= 1
        count = index - first + 1
        shown.append(warning if count == 1 else f"the {count} above: {warning}")
    return shown


def _interval_title(results: Sequence[Result]) -> str:
    levels = {result.interval.level for result in results if result.interval}
    return f"{100 * levels.pop():g} % interval" if len(levels) == 1 else "interval"


def _cells(result: Result, *, against: bool) -> tuple[str, ...]:
    """One line; `against` tells metrics of one name apart by their reference."""
    reference = f"against {result.reference}" if against and result.reference else ""
    name = " ".join(part for part in (result.name, reference, result.arrow) if part)
    return (name, result.shown_value, _spread(result), result.shown_count, result.shown_extractor)


def _spread(result: Result) -> str:
    """`± half-width` where the interval is centred on the value, else `low – high`."""
    interval, value = result.interval, result.value
    if interval is None or value is None:
        return result.shown_interval
    below, above = value - interval.low, interval.high - value
    if below > 0 and abs(below - above) <= 0.02 * below:
        return "± " + number((below + above) / 2, places=decimals(value))
    return result.shown_interval


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = []
    for cell, width, right in zip(cells, widths, _RIGHT, strict=False):
        space = " " * (width - columns_of(cell))
        padded.append(space + cell if right else cell + space)
    return _GAP.join(padded).rstrip()


def columns_of(text: str) -> int:
    """Terminal columns that `text` takes: wide characters take two, combining ones none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)
