"""Two runs that differ by seed alone: how often anything at all is called a difference."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from evaluator.comparison.differences import (
    Draft,
    Frame,
    Settings,
    movers,
    of_results,
    of_scores,
)
from evaluator.comparison.family import judged
from evaluator.comparison.pairs import Pairs
from evaluator.comparison.records import Difference
from evaluator.comparison.values import Scores
from evaluator.metrics.intervals import Interval, Replicates
from evaluator.metrics.results import Result

FRAME = Frame(None, None, None, None, ("A", "B"))
SETTINGS = Settings(level=0.95, permutations=499)


def verdicts(seed: int, *, bonus: float = 0.0) -> list[str]:
    """Six scores of one sample each, which depend on each other, of 30 prompts with 3 images."""
    rng = np.random.default_rng(seed)
    prompts = np.repeat(np.arange(30), 3)
    mixing = np.eye(6) + 0.5
    shared = rng.normal(size=(30, 6))[prompts]
    # what a prompt does to a run's images alike is noise between the runs, too
    runs = [
        (shared + rng.normal(size=(30, 6))[prompts] + rng.normal(size=(90, 6))) @ mixing
        for _ in range(2)
    ]
    runs[1] = runs[1] + bonus
    drafts = [
        of_scores(
            Scores(f"score-{i}", True, (runs[0][:, i], runs[1][:, i]), marks=False),
            prompts,
            np.ones(90, np.bool_),
            FRAME,
            SETTINGS,
        )
        for i in range(6)
    ]
    return [found.verdict for found in judged(drafts, 0.95)]


def test_in_5_of_100_pairs_at_most_anything_is_found():
    rounds = 300
    found = np.mean([set(verdicts(seed)) != {"no difference found"} for seed in range(rounds)])
    assert found <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / rounds)
    assert found > 0.0


def test_a_difference_that_is_there_is_found():
    found = [verdicts(seed, bonus=4.0) for seed in range(20)]
    assert np.mean([each == ["better"] * 6 for each in found]) > 0.8


def of_prompts(count: int) -> Draft:
    """A difference that is the same way in every prompt, and varies."""
    values = np.linspace(0.1, 0.4, count)
    scores = Scores("score", False, (values, 0.5 * values), marks=False)
    return of_scores(scores, np.arange(count), np.ones(count, np.bool_), FRAME, SETTINGS)


@pytest.mark.parametrize(("count", "interval"), [(2, False), (3, False), (4, False), (5, True)])
def test_prompts_too_few_for_any_finding_are_not_tested_and_count_in_no_family(count, interval):
    few, many = judged([of_prompts(count), of_prompts(6)], 0.95)
    assert (few.verdict, few.p, few.family) == ("not tested", None, 0)
    assert few.why.startswith(f"not tested: expected at least 6 prompts, got {count}, of which no")
    assert few.difference == pytest.approx(-0.125)
    assert (few.interval is not None) == interval
    said = f"no interval: expected at least 5 prompts, got {count}"
    assert any(warning.startswith(said) for warning in few.warnings) == (not interval)
    assert (many.family, many.p, many.verdict) == (1, 2 / 2**6, "better")


def test_prompts_too_few_after_the_correction_say_so():
    drafts = [of_prompts(6), of_prompts(6)]
    assert all(
        "so few prompts cannot give less than p = 0.031 before it" in found.why
        for found in judged(drafts, 0.95)
    )


def test_sets_of_few_groups_of_prompts_have_neither_interval_nor_test():
    rng = np.random.default_rng(3)

    def number(groups: int, shift: float) -> Result:
        left_out = tuple((1.0 + shift + 0.1 * rng.normal(size=groups)).tolist())
        seen = Replicates(1.0 + shift, left_out, (3,) * groups)
        around = Interval(0.5, 1.5, 0.95, "jackknife", "", seen)
        return Result("fd", 1.0 + shift, 3 * groups, False, around, (), {})

    for groups, tested in ((4, False), (8, True)):
        draft = of_results(number(groups, 0.0), number(groups, 0.3), groups, FRAME, SETTINGS)
        found = draft.difference
        assert (found.interval is not None, found.p is not None) == (tested, tested)
        if not tested:
            assert "expected at least 6 groups of prompts, got 4" in found.why
            assert "no interval: expected at least 5 groups of prompts, got 4" in found.warnings[-1]


@pytest.mark.parametrize(("higher", "verdict"), [(True, "worse"), (False, "better")])
def test_the_direction_of_a_score_decides_what_is_better(higher, verdict):
    values = np.linspace(0.0, 1.0, 12)
    scores = Scores("score", higher, (values, values - 1.0), marks=False)
    draft = of_scores(scores, np.arange(12), np.ones(12, np.bool_), FRAME, SETTINGS)
    assert judged([draft], 0.95)[0].verdict == verdict


def of_marks(first: list[int], second: list[int], *, higher: bool | None) -> Difference:
    values = np.array(first, np.float64), np.array(second, np.float64)
    count = len(first)
    scores = Scores("marks", higher, values, marks=True)
    everyone = np.ones(count, np.bool_)
    return of_scores(scores, np.arange(count), everyone, FRAME, SETTINGS).difference


@pytest.mark.parametrize("second", [[0] * 9, [1] * 9])
def test_prompts_that_all_differ_alike_have_no_interval_that_is_certain(second):
    found = of_marks([0] * 9, second, higher=False)
    assert found.difference == second[0]
    assert found.interval is None
    assert any("no interval: leaving any prompts out" in each for each in found.warnings)


@pytest.mark.parametrize(("higher", "both", "neither"), [(True, 1, 3), (False, 3, 1), (None, 1, 3)])
def test_to_pass_is_the_better_mark(higher, both, neither):
    found = of_marks([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, 1], higher=higher)
    assert found.agreement is not None
    assert (found.agreement.both, found.agreement.neither) == (both, neither)
    assert (found.agreement.only_baseline, found.agreement.only_other) == (1, 1)


def test_marks_that_never_disagree_are_no_difference_and_no_finding():
    found = of_marks([1, 0, 1, 1, 0, 1, 1], [1, 0, 1, 1, 0, 1, 1], higher=True)
    assert found.agreement == (5, 0, 0, 2, 1.0, 1.0)
    assert (found.p, found.test, found.interval) == (1.0, "no pair differs", None)


@pytest.mark.parametrize("mark", [0, 1])
def test_marks_that_are_all_the_same_in_both_runs_are_counted(mark):
    found = of_marks([mark] * 6, [mark] * 6, higher=True)
    assert found.agreement == ((6, 0, 0, 0, 1.0, 1.0) if mark else (0, 0, 0, 6, 1.0, 1.0))
    assert found.p == 1.0


def test_scores_that_one_run_lacks_leave_their_pairs_out_of_both_values():
    a = np.array([1.0, 2.0, np.nan, 4.0, 5.0, 6.0, 7.0, 8.0])
    b = np.array([1.5, np.nan, 9.0, 4.0, 6.0, 6.5, 7.0, 8.5])
    scores = Scores("score", True, (a, b), marks=False)
    found = of_scores(scores, np.arange(8), np.ones(8, np.bool_), FRAME, SETTINGS).difference
    assert (found.n, found.num_prompts) == (6, 6)
    assert found.baseline == pytest.approx(31 / 6)
    assert found.difference == pytest.approx(2.5 / 6)
    assert found.warnings == ("2 pairs are left out: one of the two samples has no finite score",)


def pairs_of(count: int) -> Pairs:
    places = np.arange(count)
    keys = pa.array([f"p{i}" for i in range(count)])
    return Pairs((places, places), places, keys, np.zeros(count, np.int64), (0, 0), (), ())


def test_pairs_that_changed_most_are_named_both_ways_and_ties_in_the_order_of_the_plan():
    b = np.array([0.0, 2.0, -1.0, 2.0, np.nan, -1.0, 0.0, 1.0])
    scores = Scores("score", False, (np.zeros(8), b), marks=False)
    found = movers(scores, pairs_of(8), [None] * 8, 3)
    assert found is not None
    assert [(each.key, each.difference) for each in found.rose] == [
        ("p1", 2.0), ("p3", 2.0), ("p7", 1.0),
    ]  # fmt: skip
    # what did not change fell no more than it rose
    assert [(each.key, each.difference) for each in found.fell] == [("p2", -1.0), ("p5", -1.0)]
    assert (found.improved, found.worsened) == (found.fell, found.rose)
    alike = Scores("score", False, (np.zeros(8), np.zeros(8)), marks=False)
    assert movers(alike, pairs_of(8), [None] * 8, 3) is None


def test_one_prompt_is_not_tested_and_counts_in_no_family():
    one, six = np.zeros(2, np.int64), np.arange(6)
    alone = Scores("alone", True, (np.array([0.1, 0.2]), np.array([0.3, 0.5])), marks=False)
    rising = np.array([0.1, 0.2, 0.3, 0.5, 0.6, 0.7])
    others = Scores("others", True, (np.zeros(6), rising), marks=False)
    drafts = [of_scores(alone, one, np.ones(2, np.bool_), FRAME, SETTINGS),
              of_scores(others, six, np.ones(6, np.bool_), FRAME, SETTINGS)]  # fmt: skip
    untested, tested = judged(drafts, 0.95)
    assert (untested.verdict, untested.p, untested.interval) == ("not tested", None, None)
    assert untested.why == "not tested: expected at least 6 prompts, got 1; evaluate more prompts"
    assert untested.difference == pytest.approx(0.25)
    assert tested.family == 1
