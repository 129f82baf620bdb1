"""Where each point of a sweep stands, as a leaderboard of its runs says: ranks are ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from evaluator.errors import EvaluatorError
from evaluator.leaderboard import Board, Cell, Standing, leaderboard
from evaluator.leaderboard.columns import NOT_COMPARABLE
from evaluator.report.sweep_points import MetricKey, SweepResults
from evaluator.report.text import plain


class Ranking(NamedTuple):
    """What a leaderboard says of the points."""

    cells: Mapping[tuple[str, MetricKey], Cell]
    """(folder of the point, metric) → its cell."""
    standings: Mapping[str, Standing]
    """Folder of the point → how often it beats the others."""
    remarks: tuple[str, ...] = ()

    def kinds(self, sweep: SweepResults, metrics: Sequence[MetricKey]) -> list[int]:
        """A number for each point, the same where all of these metrics can be compared.

        What the leaderboard does not rank together (other prompts, numbers of samples,
        extractors, references) is of several kinds. Without a leaderboard all are of one.
        """
        if not self.cells:
            return [0] * len(sweep.points)
        known: dict[tuple[str, ...], int] = {}
        found = (tuple(self._kind(p.folder, metric) for metric in metrics) for p in sweep.points)
        return [known.setdefault(kind, len(known)) for kind in found]

    def _kind(self, folder: str, metric: MetricKey) -> str:
        cell = self.cells.get((folder, metric))
        if cell is None or cell.reason.startswith(NOT_COMPARABLE):
            return f"only {folder}"
        return f"column {cell.column}"


def read_ranking(sweep: SweepResults, runs: Path) -> Ranking:
    """Rank the points that have numbers; where that fails, a remark says why."""
    there = [point.folder for point in sweep.points if point.results]
    if not there:
        return Ranking({}, {})
    try:
        board = leaderboard([runs / folder for folder in there])
    except EvaluatorError as error:
        return Ranking({}, {}, (f"The points could not be ranked: {plain(error)}",))
    folders = {row.name: Path(row.path).name for row in board.rows if row.path is not None}
    cells = {
        (folders[cell.row], metric): cell
        for cell in board.cells
        for metric in sweep.metrics
        if cell.row in folders and _is_about(board, cell.column, metric)
    }
    standings = {folders[s.row]: s for s in board.standings if s.row in folders}
    return Ranking(cells, standings, tuple(plain(fault) for fault in board.faults))


def _is_about(board: Board, column: str, metric: MetricKey) -> bool:
    return any(
        each.id == column
        and each.metric == metric.name
        and (not metric.reference or each.reference == metric.reference)
        for each in board.columns
    )
