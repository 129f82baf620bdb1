"""Agreement: published worked examples, a peer, brute force, and known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from evaluator.errors import MetricError
from evaluator.statistics.agreement import (
    MISSING,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    label_counts,
    pair_agreement,
    rater_agreement,
    share_against_chance,
)

LABELS = st.integers(0, 3)
NA = MISSING


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=30))
def test_cohens_kappa_is_the_peers(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs).T
    ours = cohen_kappa(first, second)
    if ours is None:
        assert set(first) == set(second)
        assert len(set(first)) == 1
    else:
        assert ours == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)


def test_cohens_kappa_by_hand() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: (0.7 - 0.5) / (1 - 0.5)."""
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_fleiss_kappa_of_fourteen_raters_and_ten_subjects() -> None:
    """The widely printed example: P̄ = 0.378, P̄_e = 0.213, κ = 0.210."""
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(counts) == pytest.approx((0.378 - 0.213) / (1 - 0.213), abs=1e-3)


def test_krippendorffs_alpha_of_his_worked_examples() -> None:
    """Krippendorff 2011: two observers and nominal data, 0.692; four with gaps, 0.743."""
    two = np.array([[0, 0, 1, 1, 3, 2, 2, 2, 4, 3, 3, 0], [1, 0, 1, 1, 1, 2, 2, 2, 4, 3, 3, 3]]).T
    assert krippendorff_alpha(two) == pytest.approx(0.692, abs=5e-4)
    four = np.array([
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NA, NA, NA],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NA, 3],
        [NA, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NA],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NA],
    ]).T  # fmt: skip
    assert krippendorff_alpha(four) == pytest.approx(0.743, abs=5e-4)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([NA, 0, 1, 2]), min_size=4, max_size=4), min_size=2, max_size=12
    )
)
def test_alpha_is_one_less_the_ratio_of_disagreements(rows: list[list[int]]) -> None:
    """Brute force over ordered pairs of answers, within items and among all of them."""
    items = [[a for a in row if a != NA] for row in rows]
    items = [row for row in items if len(row) > 1]
    everything = [a for row in items for a in row]
    n = len(everything)
    among = sum(a != b for a in everything for b in everything)
    found = krippendorff_alpha(np.array(rows))
    if not among:
        assert found is None
        return
    within = sum(sum(a != b for a in row for b in row) / (len(row) - 1) for row in items) / n
    assert found == pytest.approx(1 - within / (among / (n * (n - 1))), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_raters_labels_and_items_have_no_order(seed: int) -> None:
    generator = np.random.default_rng(seed)
    table = generator.integers(-1, 3, (15, 4))
    renamed = np.append(generator.permutation(3), NA)[table]
    shuffled = renamed[generator.permutation(15)][:, generator.permutation(4)]
    assert krippendorff_alpha(shuffled) == pytest.approx(krippendorff_alpha(table), abs=1e-12)


def test_fleiss_and_krippendorff_agree_in_the_limit() -> None:
    """They differ by (1 - kappa) / (items x raters) where no answer is missing."""
    table = np.random.default_rng(1).integers(0, 3, (40, 5))
    table[:25] = table[:25, :1]
    kappa, alpha = fleiss_kappa(label_counts(table)), krippendorff_alpha(table)
    assert alpha == pytest.approx(kappa + (1 - kappa) / 200, abs=1e-12)


def test_perfect_agreement_is_one_and_has_no_interval() -> None:
    table = np.repeat(np.array([0, 1, 1, 2, 0])[:, None], 3, axis=1)
    found = rater_agreement(table)
    assert found.value == 1.0
    assert found.interval is None
    assert "agreed everywhere" in found.remark


@pytest.mark.parametrize(
    ("table", "remark"),
    [
        ([[0, 0], [0, 0]], "nothing varies"),
        ([[0, NA], [NA, 1]], "no item has two answers"),
    ],
)
def test_what_is_undefined_has_no_value_and_a_reason(table: list[list[int]], remark: str) -> None:
    found = rater_agreement(np.array(table))
    assert found.value is None
    assert remark in found.remark


def test_random_answers_have_alpha_zero_inside_their_interval() -> None:
    """Coverage of 0 by 300 intervals: 95 %, ±2.5 % of simulation, and a little for small n."""
    generator = np.random.default_rng(8)
    held = []
    for _ in range(300):
        found = rater_agreement(generator.integers(0, 3, (60, 3)))
        held.append(found.interval.low <= 0.0 <= found.interval.high)
    assert 0.915 <= np.mean(held) <= 0.985


def test_intervals_cover_a_known_kappa() -> None:
    """Two raters who copy the truth 3 times in 4, else guess one of two: kappa 9/16."""
    generator = np.random.default_rng(9)
    held = []
    for _ in range(300):
        truth = generator.integers(0, 2, 100)
        told = [
            np.where(generator.random(100) < 0.75, truth, generator.integers(0, 2, 100))
            for _ in range(2)
        ]
        found = pair_agreement(*told)
        held.append(found.interval.low <= 9 / 16 <= found.interval.high)
    assert 0.915 <= np.mean(held) <= 0.985


def test_raters_who_met_the_same_items_twice_do_not_make_more_items() -> None:
    """Half of the items are clear, the others guesses: kappa 1/2 over items, five raters each."""
    generator = np.random.default_rng(11)
    held = []
    for _ in range(300):
        clear, truth = generator.integers(0, 2, (2, 40))
        told = [
            np.where(clear[:, None] == 1, truth[:, None], generator.integers(0, 2, (40, 5)))
            for _ in range(2)
        ]
        found = pair_agreement(*(t.ravel() for t in told), prompts=np.repeat(np.arange(40), 5))
        held.append(found.interval.low <= 0.5 <= found.interval.high)
    assert 0.915 <= np.mean(held) <= 0.985


def test_items_of_one_prompt_are_left_out_together() -> None:
    table = np.random.default_rng(12).integers(0, 2, (20, 3))
    twice, prompts = np.repeat(table, 2, axis=0), np.repeat(np.arange(20), 2)
    once, both = rater_agreement(table), rater_agreement(twice, prompts=prompts)
    width = [found.interval.high - found.interval.low for found in (once, both)]
    assert width[1] == pytest.approx(width[0], rel=0.05)
    assert both.num_items == 40


def test_same_data_and_seed_give_the_same_interval() -> None:
    table = np.random.default_rng(2).integers(-1, 3, (30, 4))
    assert rater_agreement(table, seed=5) == rater_agreement(table, seed=5)
    assert rater_agreement(table, seed=5) != rater_agreement(table, seed=6)


def test_a_share_at_chance_is_not_significant_and_a_clear_one_is() -> None:
    raters = np.repeat(np.arange(8), 30)
    even = share_against_chance(np.tile([1, 0], 120), [raters])
    assert even.p_value == 1.0
    clear = share_against_chance(np.random.default_rng(3).random(240) < 0.75, [raters])
    assert clear.p_value < 0.001
    assert clear.interval.low > 0.5


def test_chance_is_rarely_called_more_than_chance() -> None:
    """5 % of 300 studies at most, ±2.5 % of simulation; raters and items differ among themselves."""
    generator = np.random.default_rng(10)
    called = []
    for _ in range(300):
        gap = 0.7 * generator.normal(size=(40, 1)) + 0.7 * generator.normal(size=(1, 8))
        right = generator.random((40, 8)) < 1 / (1 + np.exp(-gap))
        items, raters = np.indices(right.shape).reshape(2, -1)
        called.append(share_against_chance(right.ravel(), [items, raters]).p_value < 0.05)
    assert np.mean(called) <= 0.075


def test_a_share_of_one_cluster_has_no_interval() -> None:
    found = share_against_chance([1, 0, 1], [[0, 0, 0]])
    assert (found.value, found.interval, found.p_value, found.n) == (2 / 3, None, None, 3)


def test_malformed_answers_are_refused() -> None:
    with pytest.raises(MetricError, match="use Krippendorff's alpha"):
        fleiss_kappa([[2, 1], [1, 1]])
    with pytest.raises(MetricError, match="two answers to each"):
        cohen_kappa([1, 2], [1])
    with pytest.raises(MetricError, match="expected at least 1 answer"):
        share_against_chance([], [[]])
