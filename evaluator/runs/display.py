"""A run on one screen: what it is, and its numbers; as text, and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from evaluator.aggregate.summary import MetricRecord
from evaluator.errors import EvaluatorError
from evaluator.text import count_of, number, plain

if TYPE_CHECKING:
    from evaluator.runs.run import Run

MAX_NUMBERS = 20
"""Numbers that are shown; `run.metrics` has all."""

MAX_WARNINGS = 6

_TITLES = ("metric", "value", "interval", "n / expected")


class Facts(NamedTuple):
    """What is shown; all text is fit to show."""

    name: str
    path: str
    lines: list[str]
    rows: list[tuple[str, str, str, str]]
    notes: list[str]


def facts(run: Run) -> Facts:
    """Collect what is shown; what cannot be read is said instead."""
    there, planned = len(run), run.num_planned
    state = "complete" if there == planned else "incomplete"
    lines = [f"{there:,} of {count_of(planned, 'sample')} ({state})"]
    try:
        model = run.config.get("model") or {}
        lines.append(f"model: {plain(model.get('id') or model.get('kind'), limit=100)}")
    except (EvaluatorError, AttributeError):
        lines.append("model: unknown")
    said = [f"{name} ({', '.join(prints)})" for name, prints in run.extractors.items()]
    lines.append(f"tables: {', '.join(run.tables) or 'none'}")
    lines.append(f"features: {', '.join(plain(text) for text in said) or 'none'}")
    try:
        metrics = run.metrics
    except EvaluatorError as error:
        return Facts(run.name, plain(run.path), lines, [], [plain(error)])
    shown = metrics[:MAX_NUMBERS]
    notes = list(notes_of(shown))
    if len(metrics) > len(shown):
        notes.append(f"{len(metrics) - len(shown)} more numbers in run.metrics")
    return Facts(run.name, plain(run.path), lines, [row_of(metric) for metric in shown], notes)


def title(metric: MetricRecord) -> str:
    """The number's name with its group: `fid [region=Africa]`."""
    group = ", ".join(f"{tag}={value}" for tag, value in (metric.group or {}).items())
    return plain(f"{metric.name} [{group}]" if group else metric.name)


def row_of(metric: MetricRecord) -> tuple[str, str, str, str]:
    """Name with arrow, value, interval, and n of expected, for people."""
    arrow = {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
    interval = metric.interval or {}
    bounds = (interval.get("low"), interval.get("high"))
    spread = " – ".join(number(bound) for bound in bounds) if None not in bounds else "—"
    count = f"{metric.n:,} / {metric.n_expected:,}"
    return title(metric) + arrow, number(metric.value), spread, count


def notes_of(metrics: Sequence[MetricRecord], *, most: int = MAX_WARNINGS) -> Iterator[str]:
    """The warnings, each once, with the numbers that it is about."""
    about: dict[str, list[str]] = {}
    for metric in metrics:
        for warning in metric.warnings:
            about.setdefault(plain(warning, limit=200), []).append(title(metric))
    for warning, names in list(about.items())[:most]:
        yield f"{', '.join(names)}: {warning}"
    if len(about) > most:
        yield f"{count_of(len(about) - most, 'more warning')} in run.metrics"


def as_text(shown: Facts) -> str:
    """Plain text."""
    lines = [f"Run {shown.name} at {shown.path}", *(f"  {line}" for line in shown.lines)]
    if shown.rows:
        rows = [_TITLES, *shown.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_TITLES))]
        for row in rows:
            cells = [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
            lines.append("  " + "  ".join(cells))
    return "\n".join([*lines, *(f"  ! {note}" for note in shown.notes)])


def as_html(shown: Facts) -> str:
    """A table without script or style of its own, for notebooks."""
    head = "".join(f"<th>{escape(text)}</th>" for text in _TITLES)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in shown.rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    notes = "".join(f"<li>{escape(note)}</li>" for note in shown.notes)
    return (
        f"<p><strong>{escape(shown.name)}</strong> <code>{escape(shown.path)}</code><br>"
        f"{'<br>'.join(escape(line) for line in shown.lines)}</p>"
        + (table if shown.rows else "")
        + (f"<ul>{notes}</ul>" if notes else "")
    )
