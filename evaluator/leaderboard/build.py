"""From runs and citations to a board."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluator.errors import ConfigError, InputError
from evaluator.leaderboard.cited import CitedRow, read_citations
from evaluator.leaderboard.collect import ReadRun, collect
from evaluator.leaderboard.columns import Draft, asked_options, draft_columns
from evaluator.leaderboard.made_with import settings_apart
from evaluator.leaderboard.questions import answers_of
from evaluator.leaderboard.ranks import NOT_RANKED, Ranked, Tables, rank
from evaluator.leaderboard.records import Board, Cell, Column, Interval, Provenance, Row
from evaluator.leaderboard.standing import Ranking, standing_remarks, standings_of
from evaluator.store.naming import distinct_names

LEVEL = 0.95
NUM_RESAMPLES = 1_000
SEED = 0
WIN_RATE = "mean win rate"
CITED = "cited: not measured here, so not ranked"


def leaderboard(
    runs: Sequence[Path],
    *,
    cited: Path | None = None,
    metrics: Sequence[str] | None = None,
    sort: str | None = None,
    by: str | None = None,
    num_resamples: int = NUM_RESAMPLES,
) -> Board:
    """Runs, and folders of runs, side by side.

    ```
    leaderboard([Path("runs/")])
    leaderboard([Path("runs/a"), Path("runs/b")], cited=Path("papers.yaml"), metrics=["fid"])
    ```

    `metrics` keeps these numbers alone, `sort` is a metric or column instead of the mean win rate,
    and `by` is the tag by whose groups the robustness is judged, instead of all tags. What cannot
    be read is told in `faults` and `remarks`. Raises InputError when no run is left, ConfigError
    for a metric or tag that no run has.
    """
    found = collect(runs)
    faults, remarks = list(found.faults), list(found.remarks)
    if not found.runs:
        lines = "\n".join(f"  - {line}" for line in [*faults, *remarks])
        raise InputError(f"expected at least one run with numbers, got none:\n{lines}")
    citations = _citations(cited, faults)
    answers = [answer for i, run in enumerate(found.runs) for answer in answers_of(run, i)]
    measured = list(dict.fromkeys(a.record.name for a in answers))
    _require_known(metrics, measured, citations)
    drafts = draft_columns(answers, metrics=metrics)
    tags = sorted({tag for a in answers for tag in a.record.group or {}})
    if by is not None and by not in tags:
        raise ConfigError(
            f"--by {by}: expected a tag by which some run's metrics are grouped "
            f"({_choice(by, tags)}). Or add `by: {by}` to a metric of the configuration, and run "
            "it again: nothing is generated anew. `evaluator compare --by` needs no such metric."
        )
    names = distinct_names([(run.name, run.path) for run in found.runs])
    tables = Tables(found.runs)
    ranked = [rank(d, tables, level=LEVEL, num_resamples=num_resamples, seed=SEED) for d in drafts]
    rankings = [Ranking(d, r) for d, r in zip(drafts, ranked, strict=True) if r.runs]
    standings, robustness = standings_of(rankings, names, by=by)
    remarks += [remark for each in ranked for remark in each.remarks]
    remarks += standing_remarks(rankings, standings, names)
    rows = _rows(found.runs, names)
    columns, cells = _measured(drafts, ranked, names)
    extra = _cited(citations, metrics, {row.name for row in rows}, columns, measured)
    board = Board(
        rows=(*rows, *extra.rows),
        columns=(*columns, *extra.columns),
        cells=(*cells, *extra.cells),
        standings=standings,
        robustness=robustness,
        remarks=(*remarks, *extra.remarks),
        level=LEVEL,
        faults=tuple(faults),
    )
    return sorted_board(board, sort)


def sorted_board(board: Board, by: str | None) -> Board:
    """The board with measured rows by mean win rate, or by a column, best first, then cited ones.

    Rows without a value there come last, in the order in which they were given.
    """
    if by is None or by == WIN_RATE:
        order = {standing.row: i for i, standing in enumerate(board.standings)}
        return _in_order(board, order, WIN_RATE)
    column = next((c for c in board.columns if by in (c.id, c.label, c.metric)), None)
    if column is None:
        known = [WIN_RATE, *(c.id for c in board.columns)]
        raise ConfigError(f"--sort {by}: expected a column of this board; {_choice(by, known)}")
    sign = -1.0 if column.higher_is_better else 1.0
    valued = [
        (sign * cell.value, cell.row)
        for cell in board.cells
        if cell.column == column.id and cell.value is not None
    ]
    order = {row: i for i, (_, row) in enumerate(sorted(valued, key=lambda each: each[0]))}
    return _in_order(board, order, column.id)


def _in_order(board: Board, order: dict[str, int], by: str) -> Board:
    rows = sorted(board.rows, key=lambda r: (not r.measured, order.get(r.name, len(board.rows))))
    return replace(board, rows=tuple(rows), sort=by)


def _citations(path: Path | None, faults: list[str]) -> tuple[CitedRow, ...]:
    try:
        return () if path is None else read_citations(path)
    except ConfigError as error:
        faults.append(str(error))
        return ()


def _require_known(
    metrics: Sequence[str] | None, measured: Sequence[str], citations: Sequence[CitedRow]
) -> None:
    known = [*measured, *dict.fromkeys(metric for row in citations for metric in row.values)]
    faults = [
        f"expected a metric that a run has, got '{metric}'; {_choice(metric, known)}"
        for metric in metrics or ()
        if metric not in known
    ]
    if faults:
        raise ConfigError("--metrics names what is not there:", tuple(faults))


def _choice(given: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"choose one of {', '.join(known)}" if known else "there is none"


def _rows(runs: Sequence[ReadRun], names: Sequence[str]) -> list[Row]:
    apart = settings_apart([run.config for run in runs])
    return [
        Row(
            name=name,
            path=str(run.path),
            provenance=run.provenance,
            citation=None,
            n=run.made,
            n_expected=run.planned,
            warnings=run.warnings,
            settings=settings,
        )
        for run, name, settings in zip(runs, names, apart, strict=True)
    ]


def _measured(
    drafts: Sequence[Draft], ranked: Sequence[Ranked], names: Sequence[str]
) -> tuple[list[Column], list[Cell]]:
    columns, cells = [], []
    for draft, found in zip(drafts, ranked, strict=True):
        question = draft.question
        first = next(iter(draft.answers.values()))
        columns.append(
            Column(
                id=draft.id,
                metric=question.metric,
                label=draft.label,
                higher_is_better=draft.higher_is_better,
                extractor=question.extractor,
                fingerprint=question.fingerprint,
                reference=first.reference,
                reference_content=question.reference,
                reference_n=question.reference_n,
                options=dict(asked_options(draft)),
                compared=found.compared,
                n=max((draft.answers[run].record.n for run in found.runs), default=None),
                n_ranked=len(found.runs),
            )
        )
        cells += [_cell(draft, found, run, names[run]) for run in draft.answers]
    return columns, cells


def _cell(draft: Draft, found: Ranked, run: int, name: str) -> Cell:
    record = draft.answers[run].record
    interval = record.interval
    return Cell(
        row=name,
        column=draft.id,
        value=record.value,
        interval=None if interval is None else _interval(interval),
        n=record.n,
        n_expected=record.n_expected,
        rank=found.ranks.get(run),
        place=found.places.get(run),
        reason=draft.reasons.get(run, ""),
        warnings=tuple(map(str, record.warnings)),
    )


def _interval(record: dict[str, Any]) -> Interval:
    texts = (str(record.get(name, "")) for name in ("method", "covers"))
    return Interval(record["low"], record["high"], record["level"], *texts)


class _Extra:
    """What citations add to a board."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.columns: list[Column] = []
        self.cells: list[Cell] = []
        self.remarks: list[str] = []


def _cited(
    citations: Sequence[CitedRow],
    metrics: Sequence[str] | None,
    taken: set[str],
    columns: Sequence[Column],
    measured: Sequence[str],
) -> _Extra:
    """Cited rows; a metric that no run measured gets a column without ranks.

    So does one that runs measured in several ways: nobody knows to which the cited value belongs.
    """
    extra = _Extra()
    counts = Counter(column.metric for column in columns)
    by_metric = {column.metric: column for column in columns if counts[column.metric] == 1}
    for row in citations:
        name = row.name
        while name in taken:
            name += " (cited)"
        taken.add(name)
        extra.rows.append(Row(name, None, Provenance(), row.citation, row.n, None))
        for metric, value in row.values.items():
            if metrics is not None and metric not in metrics:
                continue
            if metric not in by_metric:
                by_metric[metric] = _unmeasured(metric, "[cited]" if counts[metric] else "")
                extra.columns.append(by_metric[metric])
                near = difflib.get_close_matches(metric, measured, n=1)
                if near and not counts[metric]:
                    extra.remarks.append(
                        f"{name}: no run measured the cited '{metric}'; did you mean '{near[0]}'?"
                    )
            interval = row.intervals.get(metric)
            cell = Cell(name, by_metric[metric].id, value, interval, row.n, None, None, None, CITED)
            extra.cells.append(cell)
    return extra


def _unmeasured(metric: str, remark: str) -> Column:
    label = f"{metric} {remark}".rstrip()
    return Column(
        id=label,
        metric=metric,
        label=label,
        higher_is_better=_direction(metric),
        extractor=None,
        fingerprint=None,
        reference=None,
        reference_content=None,
        reference_n=None,
        options={},
        compared=NOT_RANKED,
        n=None,
        n_ranked=0,
        cited_only=True,
    )


def _direction(metric: str) -> bool | None:
    """Which direction is better, where the metric is one of ours."""
    from evaluator.metrics.catalog import resolve

    try:
        plan = resolve(metric)
    except ConfigError:
        return None
    return dict(zip(plan.result_names, plan.higher_is_better, strict=True)).get(metric)
