"""Horizontal bars: amounts of a few named things, the longest first."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import NamedTuple

from evaluator.report.svg import canvas, element, text
from evaluator.report.text import plain


class Bar(NamedTuple):
    """One amount, 0 or more, and what stands beside its bar."""

    name: str
    amount: float
    said: str


def draw_bars(slug: str, title: str, description: str, bars: Sequence[Bar]) -> ET.Element:
    """At least one bar; those of nothing are a pixel long."""
    bars = sorted(bars, key=lambda bar: -bar.amount)
    names = [plain(bar.name, limit=32) for bar in bars]
    left = 16 + 6.6 * max(map(len, names))
    svg = canvas(slug, title, description, 460, 34 + 22 * len(bars))
    text(svg, 8, 18, title, kind="title")
    longest = bars[0].amount or 1.0
    for i, (name, bar) in enumerate(zip(names, bars, strict=True)):
        y = 30 + 22 * i
        length = max(1.0, (360 - left) * bar.amount / longest)
        text(svg, left - 6, y + 13, name, anchor="end")
        element(svg, "rect", "bar s0", x=left, y=y, width=length, height=16)
        text(svg, left + length + 6, y + 13, bar.said)
    return svg
