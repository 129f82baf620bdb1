"""What the points of a sweep say together: one page, figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluator.report.fitted import fitted
from evaluator.report.sweep_points import read_sweep, short, shown, spread


def sweep_table(folder: Path, *, width: int | None = None) -> str:
    """Every point with its metrics, as plain text for a terminal of `width` columns."""
    sweep = read_sweep(folder)
    titles = [*(short(path) for path in sweep.paths)]
    titles += [f"{metric.label} {sweep.arrow(metric)}".strip() for metric in sweep.metrics]
    rows = []
    for point in sweep.points:
        settings = [shown(point.settings.get(path, "")) for path in sweep.paths]
        rows.append([*settings, *(spread(point.results.get(m)) for m in sweep.metrics)])
    table = fitted(
        titles, rows, [[p.trouble] * bool(p.trouble) for p in sweep.points], width=width,
        rigid=range(len(titles)), elsewhere="the page of `evaluator sweep` has them",
    )  # fmt: skip
    return "\n".join([table, *(f"! {warning}" for warning in sweep.warnings)])


def write_sweep(folder: Path, output: Path | None = None, *, metrics: Sequence[str] = ()) -> Path:
    """Write the page about a sweep and return its path; the default place is `FOLDER/report/`.

    `metrics` names the two or three that are weighed against each other; chosen where it is empty.
    Figures and tables lie beside the page. It is written aside and swapped in when complete.
    Raises RunDirectoryError where `folder` is no sweep's, or `output` holds something else.
    """
    from evaluator.report.replaced import PAGE, replaced
    from evaluator.report.sweep_page import fill

    sweep = read_sweep(folder)
    final = (folder / "report" if output is None else output).resolve()
    with replaced(final) as aside:
        fill(sweep, aside, metrics=metrics, runs=folder.resolve(), final=final)
    return final / PAGE
