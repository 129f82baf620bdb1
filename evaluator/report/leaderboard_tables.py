"""A leaderboard as a terminal table, Markdown, CSV, and the rows of a Parquet file."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from evaluator.leaderboard import Board, Cell, Column, Row, Standing
from evaluator.leaderboard.build import CITED
from evaluator.leaderboard.columns import NOT_COMPARABLE
from evaluator.report.leaderboard_text import (
    DIRECTIONS,
    PROVENANCE,
    grid,
    made_with,
    percent,
    ranks_meaning,
    robustness_lines,
    row_warnings,
    said,
    shown,
    title_of,
    unranked,
)
from evaluator.report.results import markdown_cell
from evaluator.report.table import aligned, columns_of
from evaluator.report.text import formula_safe

GAP = 2
"""Spaces between the columns of a terminal."""


def as_text(board: Board, *, width: int | None = None) -> str:
    """The board for a terminal: no escape sequence, whatever names and sources hold.

    Wider than `width`, it goes on below with the next columns, the names of the runs repeated.
    """
    names = ["run", *(_name(row) for row in board.rows)]
    columns = [_win_rates(board)] if board.standings else []
    cells = grid(board)
    for each in board.columns:
        values = [shown(cells.get((row.name, each.id))) for row in board.rows]
        columns.append([title_of(each), *values])
    blocks = [*_blocks(names, columns, width), *_blocks(names, _settings(board), width)]
    text = "\n\n".join(_aligned(each) for each in blocks)
    notes = [*ranks_meaning(board), *_notes(board)]
    wrapped = [
        textwrap.fill(note, width or 100, subsequent_indent="  ", break_on_hyphens=False)
        for note in notes
    ]
    return "\n".join([text, "", *wrapped]).rstrip()


def as_markdown(board: Board) -> str:
    """The board as a Markdown document: values and ranks, then all that stands behind them."""
    standings, found = {standing.row: standing for standing in board.standings}, grid(board)
    head = ["run", *(["mean win rate", "first in"] if standings else [])]
    head += [title_of(column) for column in board.columns]
    rows = []
    for row in board.rows:
        cells = [_name(row)]
        if standings:
            cells += _standing(standings.get(row.name))
        cells += [shown(found.get((row.name, column.id))) for column in board.columns]
        rows.append(cells)
    lines = ["# Leaderboard", "", *_table(head, rows)]
    lines += [f"Sorted by {markdown_cell(said(board.sort))}.", ""]
    lines += [line for said_of in ranks_meaning(board) for line in (markdown_cell(said_of), "")]
    notes = _notes(board)
    lines += [*(f"- {markdown_cell(note)}" for note in notes), ""] if notes else []
    lines += ["## Columns", "", *_table(_COLUMN_HEAD, [_column(c) for c in board.columns])]
    lines += ["## Rows", "", *_table(_row_head(), [_row(row) for row in board.rows])]
    return "\n".join(lines).rstrip() + "\n"


def as_csv(board: Board) -> str:
    """One line a run, full precision; text cells cannot become formulas."""
    standings, found = {standing.row: standing for standing in board.standings}, grid(board)
    head = ["run", "origin", "source", "protocol", "path", "place", "mean win rate",
            "win rate low", "win rate high", "first", "keeps place"]  # fmt: skip
    head += [name for name, _ in _FIELDS]
    for column in board.columns:
        head += [f"{said(column.label)}{end}" for end in _ENDS]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([formula_safe(each) for each in head])
    for row in board.rows:
        standing, citation = standings.get(row.name), row.citation
        cells: list[object] = [
            said(row.name), "measured" if row.measured else "cited",
            said(citation.source) if citation else "", said(citation.protocol) if citation else "",
            said(row.path or ""),
        ]  # fmt: skip
        cells += (
            [standing.place, standing.win_rate, standing.low, standing.high, standing.first,
             standing.keeps]
            if standing else [""] * 6
        )  # fmt: skip
        cells += [_bare(getattr(row if of_row else row.provenance, n)) for n, of_row in _FIELDS]
        for column in board.columns:
            cells += _csv_cells(found.get((row.name, column.id)), column)
        writer.writerow([formula_safe(c) if isinstance(c, str) else c for c in cells])
    return out.getvalue()


def tidy_rows(board: Board) -> list[dict[str, Any]]:
    """One record a run and metric, for Parquet: every value that the board holds."""
    rows = {row.name: row for row in board.rows}
    columns = {column.id: column for column in board.columns}
    standings = {standing.row: standing for standing in board.standings}
    found = []
    for cell in board.cells:
        row, column, standing = rows[cell.row], columns[cell.column], standings.get(cell.row)
        interval, rank, p = cell.interval, cell.rank, row.provenance
        of = _shares(cell, column)
        found.append({
            "run": said(row.name), "measured": row.measured,
            "source": said(row.citation.source) if row.citation else None,
            "protocol": said(row.citation.protocol) if row.citation else None,
            "path": None if row.path is None else said(row.path),
            "metric": column.metric, "column": column.id, "label": said(column.label),
            "higher_is_better": column.higher_is_better,
            "value": cell.value,
            "low": interval and interval.low, "high": interval and interval.high,
            "level": interval and interval.level,
            "rank_low": rank and rank.low, "rank_high": rank and rank.high,
            "ranked_among": rank and rank.among, "place": cell.place,
            "not_ranked_because": said(cell.reason) or None,
            "n": cell.n, "n_expected": cell.n_expected,
            "extractor": of and of.extractor, "fingerprint": of and of.fingerprint,
            "reference": of and of.reference, "reference_content": of and of.reference_content,
            "reference_n": of and of.reference_n,
            "options": of and json.dumps(of.options, sort_keys=True, default=str),
            "compared": said(column.compared),
            "mean_win_rate": standing and standing.win_rate,
            **{n: _bare(getattr(p, n)) for n, of_row in _FIELDS if not of_row},
            "warnings": [said(w) for w in cell.warnings],
        })  # fmt: skip
    return found


_FIELDS = (
    ("kind", False), ("model", False), ("revision", False), ("weights", False),
    ("scheduler", False), ("steps", False), ("guidance_scale", False), ("height", False),
    ("width", False), ("dtype", False), ("images_per_prompt", False), ("seed", False),
    ("prompts", False), ("evaluator", False), ("n", True), ("n_expected", True),
)  # fmt: skip
"""Name, and whether it is the row's own or its provenance's."""

_ENDS = (
    "", " low", " high", " rank low", " rank high", " n", " n expected", " not ranked because",
    " direction", " extractor", " fingerprint", " reference",
)  # fmt: skip


def _csv_cells(cell: Cell | None, column: Column) -> list[object]:
    if cell is None:
        return [""] * len(_ENDS)
    interval, rank, of = cell.interval, cell.rank, _shares(cell, column)
    return [
        cell.value, interval and interval.low, interval and interval.high,
        rank and rank.low, rank and rank.high, cell.n, cell.n_expected, said(cell.reason),
        DIRECTIONS[column.higher_is_better],
        said(of.extractor or "") if of else "", said(of.fingerprint or "") if of else "",
        said(of.reference or "") if of else "",
    ]  # fmt: skip


def _shares(cell: Cell, column: Column) -> Column | None:
    """The column where it tells how the value was measured; None of what only stands in it.

    That is a cited value, and one that is not comparable: its reason says what sets it apart.
    """
    stands_only = cell.reason == CITED or cell.reason.startswith(NOT_COMPARABLE)
    return None if stands_only else column


def _bare(value: Any) -> Any:
    """Numbers as they are, text fit to show."""
    return said(value) if isinstance(value, str) else value


def _name(row: Row) -> str:
    return said(row.name, limit=60) + ("" if row.measured else " †")


def _notes(board: Board) -> list[str]:
    """All that a reader must know beside the numbers."""
    cited = [
        f"† {said(row.name)}: {said(row.citation.source)}"
        + (f"; {said(row.citation.protocol)}" if row.citation.protocol else "")
        + (f"; {said(row.citation.notes)}" if row.citation.notes else "")
        for row in board.rows
        if row.citation
    ]
    cited += ["† cited, not measured here: never ranked"] if cited else []
    return [
        *robustness_lines(board), *unranked(board), *row_warnings(board),
        *(said(remark) for remark in board.remarks), *cited,
    ]  # fmt: skip


def _win_rates(board: Board) -> list[str]:
    found = {standing.row: standing for standing in board.standings}
    return ["win rate", *(_rate(found.get(row.name)) for row in board.rows)]


def _rate(standing: Standing | None) -> str:
    if standing is None:
        return "—"
    return f"{standing.win_rate:.2f} ({standing.low:.2f} – {standing.high:.2f})"


def _standing(standing: Standing | None) -> list[str]:
    return [_rate(standing), "—" if standing is None else percent(standing.first)]


def _blocks(
    names: list[str], columns: Sequence[list[str]], width: int | None
) -> list[list[list[str]]]:
    """The columns in as many blocks as it takes, each beginning with the names."""
    blocks: list[list[list[str]]] = []
    for column in columns:
        if not blocks or (width is not None and _width([*blocks[-1], column]) > width):
            blocks.append([names])
        blocks[-1].append(column)
    return blocks


def _settings(board: Board) -> list[list[str]]:
    """The settings in which the measured rows differ, a column each."""
    paths = dict.fromkeys(path for row in board.rows for path in row.settings)
    found = []
    for path in paths:
        values = [row.settings.get(path) if row.measured else None for row in board.rows]
        cells = ["—" if v is None else said(str(v), limit=40) for v in values]
        found.append([said(path).removeprefix("generation."), *cells])
    return found


def _width(columns: Sequence[Sequence[str]]) -> int:
    return sum(max(map(columns_of, column)) + GAP for column in columns) - GAP


def _aligned(columns: Sequence[Sequence[str]]) -> str:
    head, *rows = zip(*columns, strict=True)
    return aligned(head, rows, [()] * len(rows))


_COLUMN_HEAD = ("metric", "direction", "extractor or judge", "reference", "differences", "n")


def _column(column: Column) -> list[str]:
    against = said(column.reference or "")
    if column.reference_content:
        against += f" {said(column.reference_content)[:8]}"
    if column.reference_n is not None:
        against += f" (n = {column.reference_n:,})"
    return [
        said(column.label), DIRECTIONS[column.higher_is_better],
        f"{said(column.extractor or '')} {said(column.fingerprint or '')[:8]}".strip(),
        against, said(column.compared), "" if column.n is None else f"{column.n:,}",
    ]  # fmt: skip


def _row_head() -> list[str]:
    return ["run", "measured or cited", *(title for _, title in PROVENANCE)]


def _row(row: Row) -> list[str]:
    origin = "measured" if row.citation is None else f"cited: {said(row.citation.source)}"
    return [said(row.name), origin, *(made_with(row, field) for field, _ in PROVENANCE)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table and an empty line."""
    lines = [_line(head), "|" + "---|" * len(head), *(_line(row) for row in rows)]
    return [*lines, ""]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(markdown_cell(cell) for cell in cells) + " |"
