"""Drawings of differences: every pair is counted once, and zero is where it should be."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.comparison.records import Difference, Span
from evaluator.report.comparison_charts import BINS, draw_histogram, draw_interval, signed
from tests.browser.records import difference

finite = st.floats(-1e6, 1e6)


def histogram(values: list[float], *, better: bool | None = True) -> ET.Element:
    svg = draw_histogram("h", "score", values, letters="B − A", higher_is_better=better)
    assert svg is not None
    return svg


def bars(svg: ET.Element) -> list[tuple[str, int, float]]:
    """Class, pairs and height of each bar, from the left."""
    found = []
    for bar in svg.findall("rect"):
        count = re.search(r": ([\d,]+) pairs", bar.findtext("title") or "")
        assert count is not None
        found.append(
            (bar.attrib["class"], int(count[1].replace(",", "")), float(bar.attrib["height"]))
        )
    return found


@settings(max_examples=60, deadline=None)
@given(values=st.lists(finite, min_size=1, max_size=40))
def test_every_pair_is_in_one_bar_and_the_sides_of_zero_are_apart(values: list[float]) -> None:
    found = bars(histogram(values))
    assert sum(count for _, count, _ in found) == len(values)
    rising = sum(count for kind, count, _ in found if kind == "bar s2")
    # A value nearer to zero than the width of a bin times 1e-12 cannot be told from it.
    near = 1e-12 * (max(map(abs, values)) or 1.0)
    assert sum(v > near for v in values) <= rising <= sum(v >= -near for v in values)
    assert len(found) <= BINS + 1


def test_bars_are_as_high_as_their_counts_and_shares_are_told() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 1, 500).tolist() + [0.0] * 20
    svg = histogram(values, better=False)
    found = bars(svg)
    highest = max(count for _, count, _ in found)
    for _, count, height in found:
        assert height == pytest.approx(122 * count / highest, abs=0.01)
    worse = 100 * np.mean(np.array(values) > 0)
    assert f"{worse:.0f} % of the pairs are worse, 4 % the same" in (svg.findtext("desc") or "")


def test_values_that_are_no_numbers_are_left_out() -> None:
    assert draw_histogram("h", "x", [float("nan")], letters="", higher_is_better=True) is None
    assert sum(c for _, c, _ in bars(histogram([1.0, float("nan"), float("inf"), -2.0]))) == 2


def ends(svg: ET.Element) -> tuple[float, float, float]:
    """Where the interval and its dot are, in pixels from zero."""
    line = next(line for line in svg.findall("line") if line.attrib["class"].startswith("line"))
    dot = svg.find("circle")
    zero = next(float(x.attrib["x1"]) for x in svg.findall("line") if x.attrib["class"] == "axis")
    assert dot is not None
    return tuple(float(v) - zero for v in (line.attrib["x1"], dot.attrib["cx"], line.attrib["x2"]))


@settings(max_examples=60, deadline=None)
@given(at=st.floats(-100, 100), below=st.floats(0.01, 100), above=st.floats(0.01, 100))
def test_intervals_are_drawn_in_proportion_about_zero(
    at: float, below: float, above: float
) -> None:
    span = Span(at - below, at + above, 0.95, "", "")
    svg = draw_interval("i", replace(difference("x", at), interval=span))
    assert svg is not None
    drawn, given_ = np.array(ends(svg)), np.array([span.low, at, span.high])
    scale = np.abs(drawn).max() / np.abs(given_).max()
    np.testing.assert_allclose(drawn, given_ * scale, atol=0.02)
    assert 0 < np.abs(drawn).max() < 90


def test_a_difference_without_a_number_has_no_drawing() -> None:
    nothing: Difference = difference("x", None)
    assert draw_interval("i", nothing) is None
    svg = draw_interval("i", replace(difference("x", 0.0), interval=None))
    assert svg is not None
    assert svg.findtext("desc") == "Difference 0.000; zero is in the middle."


def test_signs_are_always_written() -> None:
    assert [signed(v) for v in (1.5, -1.5, 0.0, None)] == ["+1.5000", "−1.5000", "0.000", "—"]
