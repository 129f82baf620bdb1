"""The page about a sweep: what it shows, and the files beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from evaluator.leaderboard import Cell
from evaluator.report.frame import TABLES, Drawing, asset, chart_rules, render_page
from evaluator.report.svg import inline, standalone
from evaluator.report.sweep_charts import Figure, against_setting, by_groups, trade_offs
from evaluator.report.sweep_front import beaten_beyond_noise, pareto_front
from evaluator.report.sweep_layout import lay_out, weighed
from evaluator.report.sweep_points import MetricKey, SweepResults, short, shown, spread
from evaluator.report.sweep_ranks import Ranking, read_ranking
from evaluator.report.sweep_tables import rows_of, write_tables
from evaluator.report.text import plain
from evaluator.report.write import PAGE

STYLE = "sweep.css"


class RankCell(NamedTuple):
    """One metric of one point."""

    shown: str
    value: float | None
    rank: str
    """The range of ranks that it may have, or its place by the bare value in brackets."""
    place: int | None
    reason: str
    """Why there is no range."""


class RankRow(NamedTuple):
    """One point with its ranks."""

    settings: Sequence[tuple[str, float | None]]
    cells: Sequence[RankCell]
    win_rate: float | None
    win_range: str
    standing: str
    link: str
    """Its own report, relative to the page; empty where there is none."""


def fill(
    sweep: SweepResults, folder: Path, *, metrics: Sequence[str], runs: Path, final: Path
) -> None:
    """Write every file of the report into an empty folder, which will lie at `final`."""
    chosen = weighed(sweep, metrics)
    layout = lay_out(sweep)
    standings, front = _standings(sweep, chosen)
    groups = by_groups(sweep, layout)
    radars = [_drawn(group.figure, folder) for group in groups]
    ranking = read_ranking(sweep, runs)
    write_tables(sweep, rows_of(sweep, front, ranking), folder)
    sections = [("points", "Points"), ("ranks", "Ranking")]
    sections += [("trade-offs", "Trade-offs")] if chosen else []
    sections += [("metrics", "Metrics along the setting")]
    sections += [("groups", "Groups")] if groups else []
    done = sum(not point.trouble for point in sweep.points)
    page = render_page(
        "sweep.html.j2",
        scripts=(TABLES,),
        styles=(STYLE,),
        title=sweep.name,
        subtitle=f"A sweep of {len(sweep.points)} points over {', '.join(map(short, sweep.paths))}",
        sections=sections,
        remarks=(*sweep.remarks, *ranking.remarks),
        warnings=sweep.warnings,
        all_there=done == len(sweep.points),
        headline=f"{done} of {len(sweep.points)} points have all their numbers.",
        settings=[short(path) for path in sweep.paths],
        metrics=[f"{metric.label} {sweep.arrow(metric)}".strip() for metric in sweep.metrics],
        rows=_rank_rows(sweep, standings, ranking, runs, final),
        chosen=[metric.label for metric in chosen],
        trade_offs=[_drawn(figure, folder) for figure in trade_offs(sweep, layout, chosen)],
        curves=[_drawn(figure, folder) for figure in against_setting(sweep, layout)],
        paired=sweep.paired,
        along=short(layout.main),
        groups=list(zip(groups, radars, strict=True)),
    )
    (folder / PAGE).write_text(page, encoding="utf-8")


def _drawn(figure: Figure | None, folder: Path) -> Drawing | None:
    """The figure for the page, and in a file of its own."""
    if figure is None:
        return None
    name = f"{figure.slug}.svg"
    rules = chart_rules() + asset(STYLE)
    (folder / name).write_text(standalone(figure.svg, rules), encoding="utf-8")
    return Drawing(Markup(inline(figure.svg)), name, figure.says)  # noqa: S704  (escaped by ET)


def _standings(sweep: SweepResults, chosen: Sequence[MetricKey]) -> tuple[list[str], list[bool]]:
    """What each point is beside the others in the chosen metrics, in words; and the front."""
    if not chosen:
        return [""] * len(sweep.points), [False] * len(sweep.points)
    ups = [bool(sweep.higher_is_better(metric)) for metric in chosen]
    values = np.array([sweep.values(metric) for metric in chosen]).T
    bounds = np.array([sweep.bounds(metric) for metric in chosen])  # (M, 2, N)
    front = pareto_front(values, ups)
    beaten = beaten_beyond_noise(bounds[:, 0].T, bounds[:, 1].T, ups)
    words = []
    for i in range(len(sweep.points)):
        if np.isnan(values[i]).any():
            words.append("lacks a number")
        elif front[i]:
            words.append("on the front")
        else:
            words.append("beaten beyond noise" if beaten[i] else "beaten, within the intervals")
    return words, front.tolist()


def _rank_rows(
    sweep: SweepResults, standings: Sequence[str], ranking: Ranking, runs: Path, final: Path
) -> list[RankRow]:
    rows = []
    for point, standing in zip(sweep.points, standings, strict=True):
        cells = []
        for metric in sweep.metrics:
            result = point.results.get(metric)
            value = None if result is None else result.value
            cell = ranking.cells.get((point.folder, metric))
            cells.append(RankCell(spread(result), value, *_rank(cell)))
        settings = [_setting(point.settings.get(path)) for path in sweep.paths]
        link = _link(runs / point.folder / "report" / PAGE, final)
        won = ranking.standings.get(point.folder)
        rate = None if won is None else won.win_rate
        between = "" if won is None else f"{won.low:.2f} – {won.high:.2f}"
        rows.append(RankRow(settings, cells, rate, between, standing, link))
    return rows


def _rank(cell: Cell | None) -> tuple[str, int | None, str]:
    """A range of ranks, the place by the bare value, and why there is no range."""
    if cell is None:
        return "—", None, ""
    if cell.rank is not None:
        return cell.rank.shown, cell.place, ""
    return ("—" if cell.place is None else f"({cell.place})"), cell.place, plain(cell.reason)


def _setting(value: object) -> tuple[str, float | None]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return ("" if value is None else shown(value)), (float(value) if number else None)  # type: ignore[arg-type]


def _link(page: Path, final: Path) -> str:
    """Where a point's own report is, seen from the page; empty where there is none."""
    return quote(os.path.relpath(page, final)) if page.is_file() else ""
