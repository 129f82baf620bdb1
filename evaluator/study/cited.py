"""A study as rows that `evaluator leaderboard --cited` reads: what people said stands beside runs.

A row of a study is not a metric of the run's own samples: it is told with its source, its n and
its intervals, and no rank is computed across.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from evaluator.durable import write_atomically
from evaluator.metrics.intervals import Interval
from evaluator.report.text import plain
from evaluator.study.results import RunResult, StudyResults

WIN_RATE, ELO, TAKEN_FOR_REAL = "human_win_rate", "human_elo", "human_taken_for_real"


def write_cited(found: StudyResults, path: Path) -> None:
    """Write (or replace) the citation file of a study: one row for each run with an answer."""
    content = yaml.safe_dump({"rows": cited_rows(found)}, sort_keys=False, allow_unicode=True)
    write_atomically(path, content.encode())


def cited_rows(found: StudyResults) -> list[dict[str, Any]]:
    """The rows: `values` and `intervals` by name, and where they come from."""
    answered = sum(1 for rater in found.raters if rater.n)
    protocol = (
        f"{found.kind}: “{plain(found.question)}”; {answered} raters, {found.n} of "
        f"{found.n_expected} answers"
    )
    # strengths are about the average of a tier: of two tiers they are two scales
    one_scale = len({run.tier for run in found.runs if run.elo is not None}) == 1
    rows = []
    for run in found.runs:
        values, intervals = _numbers(run, one_scale)
        if values:
            rows.append({
                "name": f"{plain(run.name)} (human study)",
                "source": f"human study {found.study}", "protocol": protocol, "n": run.n,
                "values": values, "intervals": intervals, "level": 0.95,
            })  # fmt: skip
    return rows


def _numbers(run: RunResult, one_scale: bool) -> tuple[dict[str, float], dict[str, list[float]]]:
    share = TAKEN_FOR_REAL if run.tier is None else WIN_RATE
    named: list[tuple[str, float | None, Interval | None]] = [
        (share, run.score, run.interval),
        (ELO, run.elo, run.elo_interval),
    ]
    named = named if one_scale else named[:1]
    values = {name: value for name, value, _ in named if value is not None}
    intervals = {name: [span.low, span.high] for name, _, span in named if span is not None}
    return values, intervals
