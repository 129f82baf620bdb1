"""The Pareto front against brute force, and its properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evaluator.report.sweep_front import alone, beaten_beyond_noise, pareto_front, told_apart

VALUES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.integers(1, 3)),
    elements=st.integers(-3, 3).map(float) | st.just(math.nan),
)


def by_brute_force(values: np.ndarray, ups: list[bool]) -> list[bool]:
    def better(a: float, b: float, up: bool) -> bool:
        return a > b if up else a < b

    def dominates(a: np.ndarray, b: np.ndarray) -> bool:
        worse = any(better(y, x, up) for x, y, up in zip(a, b, ups))
        known = not any(math.isnan(v) for v in (*a, *b))
        return known and not worse and any(better(x, y, up) for x, y, up in zip(a, b, ups))

    whole = [not any(map(math.isnan, row)) for row in values]
    return [
        there and not any(dominates(other, row) for other in values)
        for row, there in zip(values, whole)
    ]


@settings(max_examples=200, deadline=None)
@given(VALUES, st.lists(st.booleans(), min_size=3, max_size=3))
def test_the_front_is_what_brute_force_finds(values: np.ndarray, ups: list[bool]) -> None:
    ups = ups[: values.shape[1]]
    assert pareto_front(values, ups).tolist() == by_brute_force(values, ups)


@settings(max_examples=100, deadline=None)
@given(VALUES, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_order_or_scale(values: np.ndarray, random: object) -> None:
    ups = [True] * values.shape[1]
    front = pareto_front(values, ups)
    order = list(range(len(values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert pareto_front(values[order], ups).tolist() == front[order].tolist()
    assert pareto_front(3 * values + 1, ups).tolist() == front.tolist()
    assert pareto_front(-values, [False] * len(ups)).tolist() == front.tolist()
    if not np.isnan(values).any():
        assert front.any()
        assert pareto_front(values[front], ups).all()


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_one_metric_has_its_best_values_on_the_front(values: np.ndarray) -> None:
    column = values[:, :1]
    best = np.nanmin(column) if not np.isnan(column).all() else math.nan
    assert pareto_front(column, [False]).tolist() == (column[:, 0] == best).tolist()


@settings(max_examples=100, deadline=None)
@given(VALUES, st.floats(0, 2))
def test_what_is_beaten_beyond_noise_is_not_on_the_front(values: np.ndarray, reach: float) -> None:
    ups = [True] * values.shape[1]
    beaten = beaten_beyond_noise(values - reach, values + reach, ups)
    assert not (beaten & pareto_front(values, ups)).any()
    wider = beaten_beyond_noise(values - reach - 1, values + reach + 1, ups)
    assert not (wider & ~beaten).any()


@settings(max_examples=100, deadline=None)
@given(VALUES, st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_each_kind_of_points_has_the_front_that_it_has_by_itself(
    values: np.ndarray, kinds: list[int]
) -> None:
    each, ups = np.array(kinds[: len(values)]), [True] * values.shape[1]
    front = pareto_front(values, ups, each)
    beaten = beaten_beyond_noise(values - 0.5, values + 0.5, ups, each)
    for kind in set(each.tolist()):
        mine = each == kind
        by_itself = values[mine]
        assert front[mine].tolist() == pareto_front(by_itself, ups).tolist()
        expected = beaten_beyond_noise(by_itself - 0.5, by_itself + 0.5, ups)
        assert beaten[mine].tolist() == expected.tolist()
        assert alone(each)[mine].all() == (mine.sum() == 1 and len(each) > 1)


def test_meeting_intervals_decide_nothing() -> None:
    assert beaten_beyond_noise([[0.0], [1.0]], [[1.0], [2.0]], [True]).tolist() == [False, False]
    assert beaten_beyond_noise([[0.0], [1.1]], [[1.0], [2.0]], [True]).tolist() == [True, False]
    assert beaten_beyond_noise([[0.0], [1.1]], [[1.0], [2.0]], [False]).tolist() == [False, True]
    assert told_apart([0.0, 1.1, math.nan], [1.0, 2.0, math.nan]) == 1
    assert told_apart([0.0, 1.0], [1.0, 2.0]) == 0


def test_no_metric_gives_no_front_without_points() -> None:
    assert pareto_front(np.empty((0, 2)), [True, False]).shape == (0,)
    with pytest.raises(ValueError, match="broadcast"):
        pareto_front(np.zeros((3, 2)), [True] * 3)
