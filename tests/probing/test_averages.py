"""Means with intervals: the textbook's, and never beyond what there can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from evaluator.probing.averages import average, spoken


def test_the_interval_is_students():
    values = np.random.default_rng(0).normal(size=12)
    found = average(values)
    assert found.interval is not None
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(expected))
    assert found.mean == pytest.approx(values.mean())


def test_an_interval_ends_where_values_do():
    found = average([1.0, 1.1, 4.0], least=1.0)
    assert found.interval is not None
    assert found.interval.low == 1.0
    assert spoken(found, ".1f").startswith("2.0 (1.0 to ")


def test_one_value_or_an_infinite_one_has_no_interval():
    assert average([2.0]).interval is None
    assert spoken(average([2.0]), ".2f") == "2.00"
    assert average([1.0, math.inf]).interval is None
