"""A comparison in a notebook: what could not be compared first, then a table a pairing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from evaluator.text import count_of, number, plain

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
    parts.append(_list(comparison.told))
    parts += [_pairing(pairing, comparison.level) for pairing in comparison.pairings]
    return "".join(parts)


def as_text(comparison: Comparison) -> str:
    """The same as plain text, for `print` and terminals; warnings are counted."""
    lines = ["Comparison"]
    lines += [
        f"  {run.letter}: {plain(run.name)} ({run.n:,} of {run.n_expected:,} samples)"
        for run in comparison.runs
    ]
    lines += [f"  ! {plain(each)}" for each in comparison.told]
    for pairing in comparison.pairings:
        lines += ["", _head(pairing), *(f"  ! {plain(note)}" for note in _notes(pairing))]
        rows = [[plain(cell) for cell in _cells(each)] for each in pairing.differences]
        rows = [list(_titles(pairing, comparison.level)), *rows] if rows else []
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            name, *numbers, verdict = (
                cell.ljust(width) if i in (0, len(row) - 1) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            lines.append("  " + "  ".join([name, *numbers, verdict]).rstrip())
        if count := sum(len(each.warnings) for each in pairing.differences):
            lines.append(f"  {count_of(count, 'warning')} in .differences")
    return "\n".join(lines)


def _head(pairing: Pairing) -> str:
    pairs, prompts = count_of(pairing.n, "pair"), count_of(pairing.num_prompts, "prompt")
    return f"{pairing.letter} against A: {pairs} of {prompts}"


def _notes(pairing: Pairing) -> list[str]:
    """What could not be compared, and what a reader should know of all numbers."""
    refused = [
        f"not compared: {refusal.subject}: {refusal.why}" for refusal in pairing.not_compared
    ]
    return [*refused, *pairing.warnings]


def _titles(pairing: Pairing, level: float) -> tuple[str, ...]:
    interval = f"{100 * level:g} % interval"
    return ("metric", "A", pairing.letter, "difference", interval, "p (Holm)", "verdict")


def _pairing(pairing: Pairing, level: float) -> str:
    rows = [_cells(each) for each in pairing.differences]
    said: dict[str, list[str]] = {}
    for each in pairing.overall:
        for warning in each.warnings:
            said.setdefault(plain(warning), []).append(plain(each.title))
    below = [f"{', '.join(names)}: {warning}" for warning, names in said.items()]
    table = _table(_titles(pairing, level), rows) if rows else ""
    head = f"<p><strong>{escape(_head(pairing))}</strong></p>"
    return f"{head}{_list(_notes(pairing))}{table}{_list(below)}"


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
