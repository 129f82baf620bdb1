"""How the scores of single samples are spread, over all of them and by the values of their tags."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from evaluator.metrics.intervals import interval_over_prompts
from evaluator.report.listing import SampleList
from evaluator.report.scores import SECONDS, Score, Scores
from evaluator.report.svg import canvas, element, text
from evaluator.report.text import formula_safe, number, plain
from evaluator.text import count_of

NUM_BINS = 30
LEVEL = 0.95
MAX_GROUPS = 24
"""Values of a tag up to which it is shown; a tag with more is in no table here."""
HEADER = ("score", "table", "column", "tag", "value", "n", "mean", "low", "high", "p10",
          "median", "p90")  # fmt: skip
BINS_HEADER = ("score", "table", "column", "from", "to", "samples")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 460.0, 220.0, 44.0, 40.0, 34.0

Values = NDArray[np.float64]


class Spread(NamedTuple):
    """One score of some samples."""

    tag: str
    """Empty for all samples."""
    value: str
    num: int
    mean: float
    low: float
    """Of the 95 % interval of the mean, clustered by prompt, or of the share where the score is yes
    or no, which has width at 0 and 1; NaN below two prompts."""
    high: float
    p10: float
    median: float
    p90: float


class Distribution(NamedTuple):
    """One score: its histogram, and its spread over all and by group."""

    score: Score
    edges: Values
    """(B + 1,)"""
    counts: NDArray[np.int64]
    """(B,)"""
    overall: Spread
    groups: list[Spread]


def distributions(samples: SampleList, scores: Scores, prompts: NDArray[np.int64]) -> list[
    Distribution
]:  # fmt: skip
    """Each score but seconds; `prompts` (N,) numbers the prompt of each planned sample."""
    found = []
    for score in scores.found():
        if score.column == SECONDS:
            continue
        finite = np.isfinite(score.values)
        values, clusters = score.values[finite], prompts[finite]
        edges = _edges(values)
        counts = np.histogram(values, edges)[0]
        share = bool(np.isin(values, (0.0, 1.0)).all())
        groups = []
        for name, tag in sorted(samples.tags.items()):
            if not 1 < len(tag.values) <= MAX_GROUPS:
                continue
            codes = tag.codes[finite]
            for value, code in sorted(tag.values.items()):
                if (inside := codes == code).any():
                    groups.append(_spread(name, value, values[inside], clusters[inside], share))
        overall = _spread("", "", values, clusters, share)
        found.append(Distribution(score, edges, counts, overall, groups))
    return found


def _edges(values: Values) -> Values:
    """(B + 1,) edges of the bins, from the lowest to the highest value.

    Of values that differ only by rounding they lie farther apart, as doubles are not dense enough.
    """
    num = min(NUM_BINS, max(2, len(np.unique(values[:100_000]))))
    low, high = float(values.min()), float(values.max())
    least = 1e-9 * max(abs(low), abs(high))
    if low < high and high - low < least:
        low, high = low - least, high + least
    edges: Values = np.histogram_bin_edges(values, num, range=(low, high))
    return edges


def _spread(
    tag: str, value: str, values: Values, clusters: NDArray[np.int64], share: bool
) -> Spread:
    low = high = float("nan")
    interval, _ = interval_over_prompts(values, clusters, level=LEVEL, share=share)
    if interval is not None:
        low, high = interval.low, interval.high
    p10, median, p90 = (float(q) for q in np.quantile(values, (0.1, 0.5, 0.9)))
    shown = plain(tag, limit=60), plain(value, limit=200)
    return Spread(*shown, len(values), float(values.mean()), low, high, p10, median, p90)


def spreads_csv(found: Sequence[Distribution]) -> str:
    """Full precision, one line for each score and group."""
    return _csv(HEADER, (
        (each.score.name, each.score.file, each.score.column, *spread)
        for each in found for spread in (each.overall, *each.groups)
    ))  # fmt: skip


def bins_csv(found: Sequence[Distribution]) -> str:
    """The bars of the histograms; the last bin holds its upper end."""
    return _csv(BINS_HEADER, (
        (each.score.name, each.score.file, each.score.column, low, high, count)
        for each in found
        for low, high, count in zip(
            each.edges[:-1].tolist(), each.edges[1:].tolist(), each.counts.tolist(), strict=True)
    ))  # fmt: skip


def _csv(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(each) for each in row] for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, float) and math.isnan(value):
        return ""
    return formula_safe(value) if isinstance(value, str) else value


def draw_histogram(found: Distribution, slug: str) -> ET.Element:
    """Bars, and a dashed line at the mean."""
    spread, name = found.overall, found.score.name
    said = (
        f"{name} of {count_of(spread.num, 'sample')}: mean {number(spread.mean)}, median "
        f"{number(spread.median)}, from {number(float(found.edges[0]))} to "
        f"{number(float(found.edges[-1]))}; the middle 80 % lie between {number(spread.p10)} and "
        f"{number(spread.p90)}. The dashed line is the mean."
    )
    svg = canvas(slug, name, said, _WIDTH, _HEIGHT)
    text(svg, 8, 18, name, kind="title")
    bottom, right, tallest = _HEIGHT - _BOTTOM, _WIDTH - 16, int(found.counts.max())
    low, high = float(found.edges[0]), float(found.edges[-1])
    scale = (right - _LEFT) / ((high - low) or 1.0)
    element(svg, "line", "grid", x1=_LEFT, x2=right, y1=_TOP, y2=_TOP)
    text(svg, _LEFT - 6, _TOP + 4, f"{tallest:,}", anchor="end")
    text(svg, _LEFT - 6, bottom + 4, "0", anchor="end")
    bins = zip(found.edges[:-1].tolist(), found.edges[1:].tolist(), found.counts.tolist(),
               strict=True)  # fmt: skip
    for start, stop, count in bins:
        tall = (bottom - _TOP) * count / tallest
        x, width = _LEFT + (start - low) * scale, max(0.5, (stop - start) * scale - 1)
        bar = element(svg, "rect", "bar s0", x=x, y=bottom - tall, width=width, height=tall)
        says = f"{number(start)} to {number(stop)}: {count_of(count, 'sample')}"
        ET.SubElement(bar, "title").text = plain(says)
    element(svg, "line", "axis", x1=_LEFT, x2=right, y1=bottom, y2=bottom)
    mean = _LEFT + (spread.mean - low) * scale
    element(svg, "line", "mean", x1=mean, x2=mean, y1=_TOP - 6, y2=bottom)
    for value, anchor in ((low, "start"), ((low + high) / 2, "middle"), (high, "end")):
        text(svg, _LEFT + (value - low) * scale, bottom + 17, number(value), anchor=anchor)
    text(svg, (_LEFT + right) / 2, _HEIGHT - 8, "value; bars count samples", anchor="middle")
    return svg
