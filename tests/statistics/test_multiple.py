"""Holm's correction: its definition, written out, and what it promises."""

from __future__ import annotations

import numpy as np
import pytest

from evaluator.errors import MetricError
from evaluator.statistics.multiple import holm


def stepped_down(values: list[float], alpha: float) -> list[bool]:
    """Holm 1979 as he tells it: go on from the smallest p while it is below α over what is left."""
    rejected, left = [False] * len(values), len(values)
    for place in sorted(range(len(values)), key=values.__getitem__):
        if values[place] > alpha / left:
            break
        rejected[place], left = True, left - 1
    return rejected


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_what_is_rejected_is_what_the_step_down_rejects(alpha):
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 30):
        values = (rng.uniform(size=count) ** 3).tolist()
        assert (holm(values) <= alpha).tolist() == stepped_down(values, alpha)


def test_a_known_family():
    # Wright 1992, table 1 has the form; the products are done by hand: 4·.01, 3·.02, 2·.04, 1·.03
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.6]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).size == 0


def test_order_does_not_matter_and_nothing_becomes_smaller():
    rng = np.random.default_rng(1)
    values, order = rng.uniform(size=20), rng.permutation(20)
    assert holm(values[order]).tolist() == holm(values)[order].tolist()
    assert (holm(values) >= values).all()


def test_errors_in_a_family_without_differences_are_as_rare_as_promised():
    rng = np.random.default_rng(2)
    p = rng.uniform(size=(4000, 8))
    share = np.mean([(holm(family) <= 0.05).any() for family in p])
    # 1 - (1 - .05/8)^8 = 4.9 %
    assert share == pytest.approx(1 - (1 - 0.05 / 8) ** 8, abs=4 * np.sqrt(0.05 * 0.95 / 4000))


@pytest.mark.parametrize("values", [[0.5, np.nan], [1.5], [[0.1]]])
def test_other_numbers_are_refused(values):
    with pytest.raises(MetricError, match="numbers from 0 to 1"):
        holm(values)
