"""A comparison in a terminal: what could not be compared, then one line a number."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from evaluator.comparison.numbers import Changed, Difference
from evaluator.comparison.records import Comparison, Pairing
from evaluator.report.fitted import cut, fitted
from evaluator.report.text import decimals, number, plain
from evaluator.text import count_of

WIDTH = 100
"""Columns that sentences are wrapped at."""
_DROPPED = (5, 4, 3, 1, 2)
"""Columns that a narrow terminal does without: p, interval, difference, then the values."""
NUM_MOVERS = 3
"""Samples shown of each score, each way; the folder has the others."""


def comparison_table(comparison: Comparison, *, width: int | None = None) -> str:
    """The comparison as plain text, without an escape sequence, whatever names and keys hold.

    No line is wider than `width`; None means as wide as it takes.
    """
    lines = []
    for run in comparison.runs:
        said = f"{plain(run.name)}  {plain(run.model)}  {run.n:,} / {run.n_expected:,}"
        lines += _wrapped(said, f"{run.letter}  ", width) if width else [f"{run.letter}  {said}"]
    for told in comparison.told:
        lines += ["", *_wrapped(plain(told), "! ", width)]
    for pairing in comparison.pairings:
        lines += ["", *_pairing(comparison, pairing, width)]
    return "\n".join(lines)


def _pairing(comparison: Comparison, pairing: Pairing, width: int | None) -> Iterator[str]:
    differs = [f"{name} {plain(a)} → {plain(b)}" for name, a, b in pairing.settings]
    about = f"; differs in {', '.join(differs)}" if differs else ""
    yield from _wrapped(
        f"{pairing.letter} against A: {count_of(pairing.n, 'pair')} of "
        f"{count_of(pairing.num_prompts, 'prompt')}"
        f"{about}",
        "", width,
    )  # fmt: skip
    for refusal in pairing.not_compared:
        said = f"{plain(refusal.subject)}: {plain(refusal.why)}"
        yield from _wrapped(said, "  not compared: ", width)
    for warning in pairing.warnings:
        yield from _wrapped(plain(warning), "  ! ", width)
    if pairing.differences:
        yield ""
        yield _table(pairing, comparison.level, width)
    for movers in pairing.movers:
        for word, rows in (("rose", movers.rose), ("fell", movers.fell)):
            if rows:
                yield ""
                yield f"{plain(movers.name)} {word} most:"
                lines = map(_mover, rows[:NUM_MOVERS])
                yield from (cut(line, width) if width else line for line in lines)


def _mover(row: Changed) -> str:
    name = f"{plain(row.key, limit=60)}[{row.image_index}]"
    values = f"{number(row.baseline)} → {number(row.other)}"
    return f"  {name}  {values}  {plain(row.prompt, limit=80)}".rstrip()


def _table(pairing: Pairing, level: float, width: int | None) -> str:
    titles = (
        "metric", "A", pairing.letter, "difference", f"{100 * level:g} % interval", "p (Holm)",
        "verdict",
    )  # fmt: skip
    rows = [_cells(each) for each in pairing.differences]
    widths = [max(len(line[i]) for line in (titles, *rows)) for i in range(len(titles))]
    right = range(1, len(titles) - 1)
    padded = [
        [cell.rjust(widths[i]) if i in right else cell for i, cell in enumerate(line)]
        for line in (titles, *rows)
    ]
    warnings, notes = _warnings(pairing.differences), _notes(pairing.differences)
    beneath = [[*notes[place], *_said_once(warnings, place)] for place in range(len(notes))]
    return fitted(
        padded[0], padded[1:], beneath, width=width, rigid=range(1, len(titles)),
        drop=_DROPPED, elsewhere="comparison.json and the page have them",
    )  # fmt: skip


def _warnings(differences: Sequence[Difference]) -> list[list[str]]:
    """The warnings of each line; a metric's are not said again of its groups with other counts."""
    said: set[tuple[str, str]] = set()
    kept = []
    for each in differences:
        wordings = [(each.name, re.sub(r"[0-9.,]+", "#", warning)) for warning in each.warnings]
        kept.append(
            [
                plain(warning)
                for warning, wording in zip(each.warnings, wordings, strict=True)
                if each.group is None or wording not in said
            ]
        )
        said.update(wordings)
    return kept


def _cells(each: Difference) -> list[str]:
    arrow = {True: " ↑", False: " ↓", None: ""}[each.higher_is_better]
    places = None if each.difference is None else _places(each)
    span = "—"
    if each.interval is not None:
        low, high = (
            _signed(end, places) for end in (each.interval.low, each.interval.high)
        )  # fmt: skip
        span = f"{low} – {high}"
    return [
        plain(each.title) + arrow,
        number(each.baseline),
        number(each.other),
        "—" if each.difference is None else _signed(each.difference, places),
        span,
        "—" if each.p_adjusted is None else shown(each.p_adjusted),
        each.verdict,
    ]


def _places(each: Difference) -> int:
    """Decimals that show both the values and how wide the interval is."""
    known = [each.baseline or 0.0, each.difference or 0.0]
    if each.interval is not None:
        known = [each.baseline or 0.0, each.interval.high - each.interval.low]
    return max(decimals(known[0]), min(decimals(known[1]), 5))


def _signed(value: float, places: int | None) -> str:
    text = number(value, places=places)
    return text if text.startswith("−") else f"+{text}"


def shown(p: float) -> str:
    """A p in a column: what is below the smallest shown is said to be."""
    return "<0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def _notes(differences: Sequence[Difference]) -> list[list[str]]:
    """What is to be said of each number itself; of groups, no reason that was said of all pairs."""
    said = {(each.name, each.why) for each in differences if each.group is None}
    return [
        list(_note(each, known=each.group is not None and (each.name, each.why) in said))
        for each in differences
    ]


def _note(each: Difference, *, known: bool) -> Iterator[str]:
    if not known and (each.verdict in ("not tested", "not comparable") or ":" in each.why):
        yield plain(each.why)
    undecided = each.verdict == "no difference found" and each.family > 1
    if undecided and (span := each.interval) and not span.low <= 0.0 <= span.high and each.p:
        yield (
            f"this interval alone leaves out 0: p is {shown(each.p)} before Holm's correction "
            f"over {each.family} tests"
        )
    if (counts := each.agreement) is not None:
        yield (
            f"both pass {counts.both:,}, only A {counts.only_baseline:,}, only the other "
            f"{counts.only_other:,}, neither {counts.neither:,}: McNemar's p = {shown(counts.p)}"
        )


def _said_once(warnings: Sequence[Sequence[str]], place: int) -> Iterator[str]:
    """The warnings beneath a line; one that the next line shares waits for that."""
    for warning in warnings[place]:
        if place + 1 < len(warnings) and warning in warnings[place + 1]:
            continue
        first = place
        while first > 0 and warning in warnings[first - 1]:
            first -= 1
        count = place - first + 1
        yield warning if count == 1 else f"the {count} above: {warning}"


def _wrapped(text: str, first: str, width: int | None) -> list[str]:
    after = " " * min(len(first), 4)
    return textwrap.wrap(
        text,
        min(width or WIDTH, WIDTH),
        initial_indent=first,
        subsequent_indent=after,
        break_on_hyphens=False,
    )
