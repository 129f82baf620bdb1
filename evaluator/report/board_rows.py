"""A leaderboard as rows of text: what the page's tables show, fit to show."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from evaluator.leaderboard.records import Board, Cell, Column, Row, Standing, Variant
from evaluator.report.text import decimals, number, plain, redacted

MAX_ORDER = 8
"""Runs named in one order; the rest are counted."""

_ARROWS = {True: ("↑", "higher is better"), False: ("↓", "lower is better"), None: ("", "")}
_WEB = re.compile(r"https?://[^\s<>\"']+$")


class ColumnHead(NamedTuple):
    """A metric's heading."""

    label: str
    arrow: str
    direction: str
    descending: bool
    """Whether the best is found by sorting downwards."""
    says: str
    """How many are ranked, and by what; or that nothing is."""
    ranked: bool


class CellText(NamedTuple):
    """One value with its interval and ranks; empty texts where there is none."""

    value: float | None
    shown: str
    interval: str
    rank: str
    first: bool
    """Whether it may be the best, and is better than at least one other."""
    partial: str
    """`n / n expected` where samples are missing."""
    notes: Sequence[int]
    """Numbers of the notes below the table."""


class RowText(NamedTuple):
    """One run or one cited row."""

    name: str
    href: str
    """The run's own report, or empty."""
    measured: bool
    source: str
    source_href: str
    """The source's address where it is one of the web's, or empty."""
    protocol: str
    settings: str
    win_rate: float | None
    shown_win_rate: str
    place: str
    made: str
    """Samples, of how many."""
    complete: bool
    cells: Sequence[CellText]
    provenance: Sequence[str]
    warnings: Sequence[str]


@dataclass
class Notes:
    """Sentences under the table, each once, with a number."""

    texts: list[str] = field(default_factory=list)

    def number(self, says: str) -> int:
        """The number of a sentence, from 1."""
        says = plain(says, limit=500)
        if says not in self.texts:
            self.texts.append(says)
        return self.texts.index(says) + 1


PROVENANCE = (
    "Kind", "Model", "Revision", "Weights", "Scheduler", "Steps", "Guidance", "Size", "Dtype",
    "Images / prompt", "Seed", "Prompts", "Evaluator",
)  # fmt: skip
"""Headings of the columns that say what a row was made with."""


def column_heads(board: Board) -> list[ColumnHead]:
    """One heading for each column of values."""
    heads = []
    for column in board.columns:
        arrow, direction = _ARROWS[column.higher_is_better]
        ranked = column.n_ranked > 0
        says = f"{column.n_ranked} ranked, {plain(column.compared, limit=80)}"
        if column.cited_only:
            says = "cited only"
        elif not ranked:
            says = f"not comparable: {plain(column.compared, limit=120)}"
        label = plain(column.label, limit=80)
        descending = column.higher_is_better is True
        heads.append(ColumnHead(label, arrow, direction, descending, says, ranked))
    return heads


def row_texts(board: Board, notes: Notes, folder: Path) -> list[RowText]:
    """The rows in the board's order; links to reports are relative to `folder`."""
    cells = {(cell.row, cell.column): cell for cell in board.cells}
    standings = {standing.row: standing for standing in board.standings}
    return [_row(row, board.columns, cells, standings.get(row.name), notes, folder)
            for row in board.rows]  # fmt: skip


def _row(
    row: Row,
    columns: Sequence[Column],
    cells: Mapping[tuple[str, str], Cell],
    standing: Standing | None,
    notes: Notes,
    folder: Path,
) -> RowText:
    source = plain(row.citation.source, limit=300) if row.citation else ""
    said = (row.citation.protocol, row.citation.notes) if row.citation else ()
    return RowText(
        name=plain(row.name, limit=120),
        href=_report(row, folder),
        measured=row.measured,
        source=source,
        source_href=source if _WEB.match(source) else "",
        protocol="; ".join(plain(each, limit=300) for each in said if each),
        settings=_settings(row.settings),
        win_rate=standing.win_rate if standing else None,
        shown_win_rate=f"{100 * standing.win_rate:.1f} %" if standing else "—",
        place=f"{standing.place}" if standing else "",
        made=_count(row),
        complete=row.n_expected is None or row.n == row.n_expected,
        cells=[_cell(cells.get((row.name, column.id)), notes) for column in columns],
        provenance=_provenance(row) if row.measured else ["—"] * len(PROVENANCE),
        warnings=[plain(warning, limit=500) for warning in row.warnings],
    )


def _cell(cell: Cell | None, notes: Notes) -> CellText:
    if cell is None:
        return CellText(None, "—", "", "", False, "", ())
    span, places = cell.interval, decimals(cell.value) if cell.value is not None else None
    ends = (number(v, places=places) for v in (span.low, span.high)) if span else ()
    whole = cell.n is None or cell.n_expected is None or cell.n == cell.n_expected
    said = [each for each in (cell.reason, *cell.warnings) if each]
    return CellText(
        value=cell.value,
        shown=number(cell.value),
        interval=" – ".join(ends),
        rank=f"rank {cell.rank.shown}" if cell.rank else "",
        first=cell.rank is not None and cell.rank.low == 1 and cell.rank.high < cell.rank.among,
        partial="" if whole else f"n {cell.n:,} / {cell.n_expected:,}",
        notes=[notes.number(each) for each in said],
    )


def _report(row: Row, folder: Path) -> str:
    """Relative address of the run's report, if there is one."""
    if row.path is None or not (page := Path(row.path) / "report" / "index.html").is_file():
        return ""
    relative = os.path.relpath(page.resolve(), folder.resolve())
    return quote(relative.replace(os.sep, "/"))


def _provenance(row: Row) -> list[str]:
    made = row.provenance
    known = made.width is not None and made.height is not None
    size = f"{made.width} × {made.height}" if known else None
    values = (
        made.kind, made.model, (made.revision or "")[:12], (made.weights or "")[:12],
        made.scheduler, made.steps, made.guidance_scale, size, made.dtype,
        made.images_per_prompt, made.seed, (made.prompts or "")[:12], made.evaluator,
    )  # fmt: skip
    return ["—" if v is None or v == "" else redacted(plain(v, limit=120)) for v in values]


def _count(row: Row) -> str:
    if row.n is None:
        return "—"
    return f"{row.n:,}" if row.n_expected is None else f"{row.n:,} / {row.n_expected:,}"


def _settings(settings: Mapping[str, object]) -> str:
    """Those that are set; another run's row says what this one lacks."""
    ends = [name.rpartition(".")[2] for name in settings]
    names = [
        end if ends.count(end) == 1 else name for end, name in zip(ends, settings, strict=True)
    ]
    every = zip(names, settings.values(), strict=True)
    pairs = [(name, value) for name, value in every if value is not None]
    said = [redacted(f"{plain(name, limit=60)}: {plain(v, limit=40)}") for name, v in pairs]
    more = f", and {len(said) - 6} more" if len(said) > 6 else ""
    return ", ".join(said[:6]) + more


def order_text(variant: Variant) -> str:
    """`a › b › c`, the best first."""
    names = [plain(name, limit=40) for name in variant.order]
    more = f" › {len(names) - MAX_ORDER} more" if len(names) > MAX_ORDER else ""
    return " › ".join(names[:MAX_ORDER]) + more


def column_facts(column: Column) -> list[str]:
    """What all values of a column share."""
    fingerprint = f" {plain(column.fingerprint)[:8]}" if column.fingerprint else ""
    extractor = f"{plain(column.extractor or '—', limit=100)}{fingerprint}"
    reference = plain(column.reference or "—", limit=100)
    if column.reference_n is not None:
        reference += f" (n = {column.reference_n:,})"
    if column.reference_content:
        reference += f" {plain(column.reference_content)[:8]}"
    options = plain(json.dumps(dict(column.options), default=str), limit=200)
    return [
        plain(column.metric, limit=100), extractor, reference,
        options if column.options else "—", plain(column.compared or "—", limit=200),
        "—" if column.n is None else f"{column.n:,}", f"{column.n_ranked}",
    ]  # fmt: skip
