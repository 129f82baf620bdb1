"""The numbers behind charts of lines, unrounded, for those who want to draw or check them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from evaluator.report.charts import attention_charts, latent_charts
from evaluator.report.curves import AttentionCurves, LatentCurves
from evaluator.report.svg import Chart
from evaluator.report.text import formula_safe, plain

FILE = "curves.csv"
HEADER = ("chart", "line", "x", "x_is", "value", "value_is", "low", "high")


def write_curves(folder: Path, attention: AttentionCurves, latents: LatentCurves) -> None:
    """Write `curves.csv` beside the page; nothing where there is no curve."""
    if charts := [*attention_charts(attention), *latent_charts(latents)]:
        (folder / FILE).write_text(curves_csv(charts), encoding="utf-8")


def curves_csv(charts: Iterable[Chart]) -> str:
    """One line for each point of every chart; `low` and `high` are empty where it has no band."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for chart in charts:
        writer.writerows([_cell(each) for each in row] for row in _rows(chart))
    return out.getvalue()


def _rows(chart: Chart) -> Iterator[tuple[object, ...]]:
    for line in chart.series:
        for x, y, low, high in zip_longest(line.x, line.y, line.low, line.high, fillvalue=math.nan):
            yield chart.slug, line.name, x, chart.x_label, y, chart.y_label, low, high


def _cell(value: object) -> object:
    if isinstance(value, str):
        return formula_safe(plain(value))
    return "" if isinstance(value, float) and math.isnan(value) else value
