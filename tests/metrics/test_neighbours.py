"""Precision, recall, density, coverage: against the direct formula, and the prdc code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import distances as module
from evaluator.metrics import precision_recall_density_coverage as prdc_scores
from evaluator.metrics.neighbours import scores_without_groups


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([np.square(row - b).sum(axis=1) for row in a])


def brute_force(
    real: np.ndarray, fake: np.ndarray, k: int, inclusive: bool
) -> tuple[float, float, float, float]:
    within = np.less_equal if inclusive else np.less
    balls = [np.sort(squared(x, x), axis=1)[:, k] for x in (real, fake)]
    between = squared(real, fake)
    in_real, in_fake = within(between, balls[0][:, None]), within(between, balls[1])
    return (
        in_real.any(axis=0).mean(),
        in_fake.any(axis=1).mean(),
        in_real.sum(axis=0).mean() / k,
        in_real.any(axis=1).mean(),
    )


@st.composite
def lattices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Points with many duplicates and equal distances, near 0 or far from it, and k."""
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    side, dim = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    offset, unit = draw(st.sampled_from([0.0, 1e4, 1e7])), draw(st.sampled_from([1.0, 0.1]))
    real, fake = (
        generator.integers(0, side, size=(draw(st.integers(8, 40)), dim)) * unit + offset
        for _ in range(2)
    )
    return real, fake, draw(st.integers(1, 7))


@settings(max_examples=120, deadline=None)
@given(points=lattices(), inclusive=st.booleans())
def test_ties_and_duplicates_are_decided_as_by_the_direct_formula(
    points: tuple[np.ndarray, np.ndarray, int], inclusive: bool
) -> None:
    real, fake, k = points
    expected = brute_force(real, fake, k, inclusive)
    assert prdc_scores(real, fake, k=k, inclusive=inclusive) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mean_far_above_the_spread_changes_no_comparison(offset: float, dtype: type) -> None:
    generator = np.random.default_rng(0)
    real, fake = ((generator.normal(size=(n, 20)) + offset).astype(dtype) for n in (150, 120))
    expected = brute_force(real.astype(np.float64), fake.astype(np.float64), 3, False)
    assert prdc_scores(real, fake, k=3) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("inclusive", [False, True])
def test_chunks_do_not_change_the_numbers(inclusive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    real, fake = (np.round(generator.normal(size=(n, 3)), 1) for n in (90, 70))
    whole = prdc_scores(real, fake, inclusive=inclusive)
    monkeypatch.setattr(module, "BLOCK", 7)
    assert prdc_scores(real, fake, inclusive=inclusive) == whole
    assert prdc_scores(real, fake, inclusive=inclusive) == pytest.approx(
        brute_force(real, fake, 5, inclusive)
    )


def test_it_agrees_with_prdc(capsys: pytest.CaptureFixture[str]) -> None:
    from prdc import compute_prdc

    generator = np.random.default_rng(2)
    real, fake = generator.normal(size=(500, 32)), generator.normal(size=(400, 32)) * 0.9 + 0.1
    peer = compute_prdc(real_features=real, fake_features=fake, nearest_k=5)
    assert prdc_scores(real, fake)._asdict() == pytest.approx(peer, rel=1e-12)


@pytest.mark.slow
def test_it_agrees_with_prdc_at_the_size_of_its_readme() -> None:
    """The README's .4772/.4705/1.0555/.9735 are of one unseeded draw; density alone varies by 0.05.

    So the same draw is given to both, and the README's numbers only bound what is plausible.
    """
    from prdc import compute_prdc

    generator = np.random.default_rng(0)
    real, fake = (generator.normal(size=(10_000, 1000)) for _ in range(2))
    scores = prdc_scores(real, fake)
    assert scores._asdict() == pytest.approx(compute_prdc(real, fake, 5), rel=1e-12)
    assert scores == pytest.approx((0.4772, 0.4705, 1.0555, 0.9735), abs=0.2)


def test_eight_copies_of_everything_are_found_inclusively_only() -> None:
    real = np.repeat(np.random.default_rng(3).normal(size=(20, 6)) + 100, 8, axis=0)
    assert prdc_scores(real, real, k=5) == (0.0, 0.0, 0.0, 0.0)
    inclusive = prdc_scores(real, real, k=5, inclusive=True)
    assert inclusive == pytest.approx((1.0, 1.0, 8 / 5, 1.0))


def test_identity_far_sets_and_collapse() -> None:
    generator = np.random.default_rng(4)
    real = generator.normal(size=(200, 4))
    same = prdc_scores(real, real)
    assert (same.precision, same.recall, same.coverage) == (1.0, 1.0, 1.0)
    assert prdc_scores(real, real + 100.0) == (0.0, 0.0, 0.0, 0.0)
    collapsed = prdc_scores(real, real[:1] + 1e-3 * generator.normal(size=(200, 4)))
    assert collapsed.recall < 0.05
    assert collapsed.precision == 1.0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_swapping_the_sets_swaps_precision_and_recall(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = generator.normal(size=(40, 3)), generator.normal(size=(30, 3)) + 0.5
    forth, back = prdc_scores(a, b, k=2), prdc_scores(b, a, k=2)
    assert (forth.precision, forth.recall) == (back.recall, back.precision)
    assert prdc_scores(generator.permutation(a), generator.permutation(b), k=2) == forth


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("sprinkled", [False, True])
def test_leaving_out_a_group_is_computing_without_it(inclusive: bool, sprinkled: bool) -> None:
    generator = np.random.default_rng(5)
    real, fake = (np.round(generator.normal(size=(n, 2)), 1) for n in (80, 120))
    groups = generator.integers(0, 4, size=120)
    if sprinkled:  # all neighbours of the few points of group 1 lie in group 0
        groups = (np.arange(120) % 20 == 0).astype(np.int64)
    sets = torch.from_numpy(real), torch.from_numpy(fake)
    num_groups = int(groups.max()) + 1
    cases = scores_without_groups(*sets, groups, num_groups, k=3, inclusive=inclusive)
    assert len(cases) == 1 + num_groups
    assert cases[0] == pytest.approx(brute_force(real, fake, 3, inclusive), rel=1e-12)
    for group, case in enumerate(cases[1:]):
        rest = brute_force(real, fake[groups != group], 3, inclusive)
        assert case == pytest.approx(rest, rel=1e-12)


def test_too_few_samples_and_bad_options_are_refused() -> None:
    few, many = np.zeros((5, 2)), np.zeros((9, 2))
    with pytest.raises(MetricError, match="fake: expected more than k=5 samples, got 5"):
        prdc_scores(many, few)
    with pytest.raises(ConfigError, match="k: expected a whole number of at least 1, got 0"):
        prdc_scores(many, many, k=0)
