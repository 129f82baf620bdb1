"""A comparison in a notebook: what could not be compared first, then a table a pairing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from evaluator.text import number, plain

if TYPE_CHECKING:
    from evaluator.comparison.numbers import Difference
    from evaluator.comparison.records import Comparison, Pairing


def as_html(comparison: Comparison) -> str:
    """HTML without script or style of its own; names and sentences are escaped."""
    runs = [
        f"{run.letter}: {plain(run.name)} ({run.n:,} of {run.n_expected:,} samples)"
        for run in comparison.runs
    ]
    parts = ["<p>" + "<br>".join(escape(line) for line in runs) + "</p>"]
    parts += [_pairing(pairing, comparison.level) for pairing in comparison.pairings]
    return "".join(parts)


def _pairing(pairing: Pairing, level: float) -> str:
    head = f"{pairing.letter} against A: {pairing.n:,} pairs of {pairing.num_prompts:,} prompts"
    notes = [f"not compared: {refusal.subject}: {refusal.why}" for refusal in pairing.refusals]
    notes += pairing.warnings
    titles = (
        "metric", "A", pairing.letter, "difference", f"{100 * level:g} % interval", "p (Holm)",
        "verdict",
    )  # fmt: skip
    rows = [_cells(each) for each in pairing.differences]
    said: dict[str, list[str]] = {}
    for each in pairing.overall:
        for warning in each.warnings:
            said.setdefault(plain(warning), []).append(plain(each.title))
    below = [f"{', '.join(names)}: {warning}" for warning, names in said.items()]
    table = _table(titles, rows) if rows else ""
    return f"<p><strong>{escape(head)}</strong></p>{_list(notes)}{table}{_list(below)}"


def _cells(each: Difference) -> tuple[str, ...]:
    arrow = {True: " ↑", False: " ↓", None: ""}[each.higher_is_better]
    span = each.interval
    interval = "—" if span is None else f"{number(span.low)} – {number(span.high)}"
    values = (number(each.baseline), number(each.other), number(each.difference))
    return (each.title + arrow, *values, interval, number(each.p_adjusted), each.verdict)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(plain(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _list(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(plain(note))}</li>" for note in notes)
    return f"<ul>{items}</ul>" if items else ""
