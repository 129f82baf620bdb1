"""The page of a leaderboard: many runs by many metrics, and how far its order can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from evaluator.leaderboard.records import Board, Column
from evaluator.report.beside import DRAWINGS, page_folder
from evaluator.report.board_charts import MAX_BARS, Bar, draw_bars
from evaluator.report.board_rows import (
    PROVENANCE,
    Notes,
    column_facts,
    column_heads,
    order_text,
    row_texts,
)
from evaluator.report.frame import TABLES, Drawing, chart_rules, render_page
from evaluator.report.svg import inline, standalone
from evaluator.report.text import plain
from evaluator.report.write import PAGE

GENERATOR = "evaluator leaderboard"
RECORD = "leaderboard.json"
TABLE_FILES = (RECORD, "leaderboard.csv", "leaderboard.md", "leaderboard.parquet")


def write_board(board: Board, folder: Path) -> Path:
    """Write the page of a leaderboard into `folder` and return its path.

    The folder may hold the leaderboard's own files (leaderboard.json and its siblings), which
    stay. The page is written aside and moved in. Raises RunDirectoryError when something else
    is in the folder.
    """
    with page_folder(folder, record=RECORD, generator=GENERATOR) as aside:
        notes = Notes()
        rows = row_texts(board, notes, folder)
        page = render_page(
            "board.html.j2",
            scripts=(TABLES, "board.js"),
            styles=("board.css",),
            generator=GENERATOR,
            title="Leaderboard",
            subtitle=_subtitle(board),
            sections=_sections(board),
            board=board,
            level=f"{100 * board.level:g} %",
            sorted_by=plain(board.sort, limit=100),
            remarks=[plain(each) for each in (*board.faults, *board.remarks)],
            heads=column_heads(board),
            rows=rows,
            notes=notes.texts,
            provenance=PROVENANCE,
            plots=[_plot(board, i, column, aside) for i, column in enumerate(board.columns)],
            overall=_overall(board, aside),
            columns=[(plain(c.label, limit=80), column_facts(c)) for c in board.columns],
            order_text=order_text,
            plain=plain,
            files=[name for name in TABLE_FILES if (folder / name).is_file()],
        )
        (aside / PAGE).write_text(page, encoding="utf-8")
    return folder.resolve() / PAGE


def _subtitle(board: Board) -> str:
    measured = sum(row.measured for row in board.rows)
    cited = len(board.rows) - measured
    runs = f"{measured:,} measured run{'s' * (measured != 1)}"
    rows = f", {cited:,} cited row{'s' * (cited != 1)}" if cited else ""
    return f"{runs}{rows}, {len(board.columns):,} columns. Sorted by {plain(board.sort)}."


def _sections(board: Board) -> list[tuple[str, str]]:
    sections = [("board", "Leaderboard"), ("plots", "Values by metric")]
    if board.standings:
        sections.append(("overall", "Overall"))
    if board.robustness is not None:
        sections.append(("robustness", "Robustness"))
    return [*sections, ("columns", "Columns")]


def _plot(board: Board, i: int, column: Column, aside: Path) -> Drawing:
    """Values of one column with their intervals, the best on top."""
    measured = {row.name: row.measured for row in board.rows}
    bars = []
    for cell in board.cells:
        if cell.column != column.id or cell.value is None:
            continue
        span = cell.interval
        low, high = (span.low, span.high) if span else (cell.value, cell.value)
        rank = f"rank {cell.rank.shown}" if cell.rank else ""
        cited = not measured.get(cell.row, True)
        bars.append(Bar(cell.row, cell.value, low, high, rank, cited))
    bars.sort(key=lambda bar: bar.value, reverse=column.higher_is_better is not False)
    title = plain(column.label, limit=60)
    shown = f"the first {MAX_BARS} of {len(bars)} rows" if len(bars) > MAX_BARS else "all rows"
    said = f"{title}: values and intervals of {shown}, {_way(column)}."
    return _drawn(f"plot-{i}", title, said, bars, aside)


def _way(column: Column) -> str:
    if column.higher_is_better is None:
        return "the highest on top, neither direction is better"
    return f"the best on top ({'higher' if column.higher_is_better else 'lower'} is better)"


def _overall(board: Board, aside: Path) -> Drawing | None:
    """Mean win rates with the intervals of their resamples."""
    if not board.standings:
        return None
    bars = [Bar(s.row, s.win_rate, s.low, s.high, f"place {s.place}", False)
            for s in board.standings]  # fmt: skip
    said = (
        "Mean win rate: the share of the other runs that a run beats, averaged over metrics, with "
        "its 95 % interval over resamples."
    )
    return _drawn("overall", "Mean win rate", said, bars, aside)


def _drawn(slug: str, title: str, said: str, bars: Sequence[Bar], aside: Path) -> Drawing:
    svg = draw_bars(f"{slug}-chart", title, said, bars)
    file = f"{DRAWINGS}/{slug}.svg"
    (aside / DRAWINGS).mkdir(exist_ok=True)
    (aside / file).write_text(standalone(svg, chart_rules()), encoding="utf-8")
    return Drawing(Markup(inline(svg)), file, said)  # noqa: S704  (ElementTree escaped it)
