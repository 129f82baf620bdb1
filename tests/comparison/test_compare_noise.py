"""Two runs that differ by seed alone: how often anything at all is called a difference."""

from __future__ import annotations

import numpy as np
import pytest

from evaluator.comparison.differences import Frame, Settings, judged, of_scores
from evaluator.comparison.records import Difference
from evaluator.comparison.values import Scores

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


def test_too_few_prompts_say_that_nothing_could_be_found():
    values = np.array([0.1, 0.2, 0.3, 0.4])
    scores = Scores("score", False, (values, values - 1.0), marks=False)
    draft = of_scores(scores, np.arange(4), np.ones(4, np.bool_), FRAME, SETTINGS)
    (found,) = judged([draft], 0.95)
    assert (found.verdict, found.p) == ("no difference found", 0.125)
    assert "so few prompts cannot give less than p = 0.12 before it" in found.why


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


def test_one_prompt_is_not_tested_and_counts_in_no_family():
    one, four = np.zeros(2, np.int64), np.arange(4)
    alone = Scores("alone", True, (np.array([0.1, 0.2]), np.array([0.3, 0.5])), marks=False)
    others = Scores("others", True, (np.zeros(4), np.array([0.1, 0.2, 0.3, 0.5])), marks=False)
    drafts = [of_scores(alone, one, np.ones(2, np.bool_), FRAME, SETTINGS),
              of_scores(others, four, np.ones(4, np.bool_), FRAME, SETTINGS)]  # fmt: skip
    untested, tested = judged(drafts, 0.95)
    assert (untested.verdict, untested.p, untested.interval) == ("not tested", None, None)
    assert untested.why == "not tested: expected at least 2 prompts, got 1; evaluate more prompts"
    assert untested.difference == pytest.approx(0.25)
    assert tested.family == 1
