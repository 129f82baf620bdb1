"""McNemar's test against the binomial distribution, counted out."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest
from scipy import stats

from evaluator.errors import MetricError
from evaluator.statistics.contingency import mcnemar, mcnemar_p


def counted(b: int, c: int) -> tuple[float, float]:
    """Exact and mid-p: go through every number of pairs that could have gone one way."""
    n, seen = b + c, abs(b - c)
    chances = [(abs(2 * k - n), comb(n, k) / 2**n) for k in range(n + 1)]
    beyond = sum(chance for far, chance in chances if far > seen)
    at = sum(chance for far, chance in chances if far == seen)
    return beyond + at, beyond + 0.5 * at


@pytest.mark.parametrize(("b", "c"), list(itertools.product([0, 1, 3, 8], [2, 3, 11])))
def test_p_is_the_share_of_outcomes_at_least_as_far_apart(b, c):
    assert mcnemar_p(b, c) == pytest.approx(counted(b, c), rel=1e-10)


def test_the_exact_p_is_the_binomial_test():
    expected = stats.binomtest(12, 12 + 29).pvalue
    assert mcnemar_p(12, 29)[0] == pytest.approx(expected, rel=1e-10)
    assert mcnemar_p(29, 12) == mcnemar_p(12, 29)


def test_many_pairs_come_near_the_chi_squared_form():
    b, c = 5_100, 4_900
    expected = stats.chi2.sf((b - c) ** 2 / (b + c), 1)
    assert mcnemar_p(b, c)[1] == pytest.approx(expected, rel=2e-3)
    assert mcnemar_p(30_000, 0)[0] == 0.0  # 2^-29,999


def test_runs_that_never_disagree_are_no_evidence():
    assert mcnemar_p(0, 0) == (1.0, 1.0)


def test_counts_are_those_of_the_pairs():
    a = np.array([True, True, False, False, True])
    b = np.array([True, False, True, False, False])
    found = mcnemar(a, b)
    assert (found.both, found.only_first, found.only_second, found.neither) == (1, 2, 1, 1)
    assert (found.p, found.mid_p) == pytest.approx(counted(2, 1))


@pytest.mark.parametrize("b", [np.array([True]), np.array([0.0, 1.0])])
def test_other_marks_are_refused(b):
    with pytest.raises(MetricError, match="expected two boolean arrays of one shape"):
        mcnemar(np.array([True, False]), b)
