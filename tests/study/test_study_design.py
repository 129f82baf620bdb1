"""The design: everything once, everything equally often, and nothing to be guessed."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import ConfigError
from evaluator.report.images import SampleId
from evaluator.study.design import (
    Amounts,
    check_items,
    make_raters,
    pair_items,
    prompts_first,
    shared_out,
    single_items,
)

SAMPLES = [SampleId(f"k{i}", 0) for i in range(30)]


def even(counts: dict[object, int], among: int) -> bool:
    """Whether `among` things came equally often, give or take one."""
    every = [*counts.values(), *([0] * (among - len(counts)))]
    return max(every) - min(every) <= 1


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_shares_are_even_and_nothing_comes_twice(
    samples: int, options: int, data: st.DataObject
) -> None:
    num = data.draw(st.integers(0, samples * options))
    found = shared_out(num, samples, options)
    assert len(set(found)) == num
    assert even(Counter(option for _, option in found), options)
    assert even(Counter(sample for sample, _ in found), samples)


DESIGN = {
    "num_runs": st.integers(2, 5), "num_items": st.integers(1, 30), "num_raters": st.integers(1, 7),
    "seed": st.integers(0, 9999), "data": st.data(),
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(**DESIGN)
def test_every_rater_sees_a_balanced_form(
    num_runs: int, num_items: int, num_raters: int, seed: int, data: st.DataObject
) -> None:
    repeats = data.draw(st.integers(0, num_items // 3))
    items = pair_items(SAMPLES, num_runs, num_items)
    raters = make_raters(items, "pairs", Amounts(num_items, repeats, num_raters), seed)
    of_pair = [tuple(shown.source for shown in item.images) for item in items]
    assert even(Counter(of_pair), num_runs * (num_runs - 1) // 2)
    for rater in raters:
        once = [trial for trial in rater.trials if not trial.repeat]
        assert sorted(trial.item for trial in once) == list(range(num_items))
        assert len(rater.trials) == num_items + repeats
        for pair in set(of_pair):
            sides = [trial.swapped for trial in once if of_pair[trial.item] == pair]
            assert abs(2 * sum(sides) - len(sides)) <= 1
    for item in range(num_items):
        sides = [t.swapped for r in raters for t in r.trials if t.item == item and not t.repeat]
        assert abs(2 * sum(sides) - len(sides)) <= 1


@settings(max_examples=60, deadline=None)
@given(**DESIGN)
def test_a_repeated_item_returns_late_and_with_its_sides_swapped(
    num_runs: int, num_items: int, num_raters: int, seed: int, data: st.DataObject
) -> None:
    repeats = data.draw(st.integers(0, num_items // 3))
    items = pair_items(SAMPLES, num_runs, num_items)
    for rater in make_raters(items, "pairs", Amounts(num_items, repeats, num_raters), seed):
        again = [(place, t) for place, t in enumerate(rater.trials) if t.repeat]
        assert len({trial.item for _, trial in again}) == repeats
        for place, trial in again:
            before = next(p for p, t in enumerate(rater.trials) if t.item == trial.item)
            assert place - before > num_items // 3
            assert rater.trials[before].swapped != trial.swapped


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40))
def test_half_of_single_images_are_real_and_runs_share_the_rest(num_runs: int, num: int) -> None:
    items = single_items(SAMPLES, num_runs, SAMPLES, num)
    sources = Counter(item.images[0].source for item in items)
    real = sources.pop(num_runs, 0)
    assert abs(2 * real - num) <= 1
    assert even(sources, num_runs)
    assert len(set(items)) == num


def test_raters_have_orders_of_their_own_and_a_seed_gives_them_again() -> None:
    items = pair_items(SAMPLES, 3, 30)
    amounts = Amounts(30, 5, 4)
    raters = make_raters(items, "pairs", amounts, 1)
    assert raters == make_raters(items, "pairs", amounts, 1)
    assert raters != make_raters(items, "pairs", amounts, 2)
    for one, other in combinations(raters, 2):
        assert [t.item for t in one.trials] != [t.item for t in other.trials]


def test_more_raters_do_not_change_the_forms_of_the_first() -> None:
    items = pair_items(SAMPLES, 3, 30)
    few, many = (make_raters(items, "pairs", Amounts(30, 5, n), 1) for n in (2, 6))
    assert many[:2] == few


def test_prompts_come_before_more_images_of_the_same_prompts() -> None:
    samples = [SampleId(f"k{i}", j) for i in range(8) for j in range(3)]
    found = prompts_first(samples, 0)
    assert sorted(found) == sorted(samples)
    for turn in range(3):
        assert len({sample.key for sample in found[8 * turn : 8 * turn + 8]}) == 8
    assert found == prompts_first(reversed(samples), 0)
    assert found != prompts_first(samples, 1)


def test_more_than_there_is_cannot_be_asked() -> None:
    with pytest.raises(ConfigError, match=r"--items: expected at most .* 90 different pairs"):
        pair_items(SAMPLES, 3, 91)
    with pytest.raises(ConfigError, match="30 different real images"):
        single_items(SAMPLES, 2, SAMPLES, 62)
    with pytest.raises(ConfigError, match="--repeats: expected at most a third of the 9 items"):
        Amounts(9, 4, 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 20), st.integers(0, 6), st.integers(0, 9999))
def test_attention_checks_come_once_never_first_and_change_no_order(
    num_items: int, checks: int, seed: int
) -> None:
    asked = pair_items(SAMPLES, 3, num_items)
    items = [*asked, *check_items(SAMPLES, 3, checks)]
    amounts = Amounts(num_items, num_items // 3, 3, checks)
    raters = make_raters(items, "pairs", amounts, seed)
    without = make_raters(asked, "pairs", Amounts(num_items, num_items // 3, 3), seed)
    for rater, plain in zip(raters, without, strict=True):
        met = [trial for trial in rater.trials if items[trial.item].check]
        assert sorted(trial.item for trial in met) == list(range(num_items, num_items + checks))
        assert not any(trial.repeat for trial in met)
        assert not items[rater.trials[0].item].check
        assert tuple(t for t in rater.trials if not items[t.item].check) == plain.trials
