"""What the points of a sweep say together: one page, figures and tables."""

from __future__ import annotations

from pathlib import Path

from evaluator.report.sweep_points import read_sweep, short, shown, spread
from evaluator.report.table import aligned


def sweep_table(folder: Path) -> str:
    """Every point with its metrics, as plain text for a terminal."""
    sweep = read_sweep(folder)
    titles = [*(short(path) for path in sweep.paths)]
    titles += [f"{metric.label} {sweep.arrow(metric)}".strip() for metric in sweep.metrics]
    rows = []
    for point in sweep.points:
        settings = [shown(point.settings.get(path, "")) for path in sweep.paths]
        rows.append([*settings, *(spread(point.results.get(m)) for m in sweep.metrics)])
    return aligned(titles, rows, [[point.trouble] * bool(point.trouble) for point in sweep.points])
