"""Outlier scores: closed forms, brute force, honest p-values, and an AUROC whose interval covers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from evaluator.errors import ProbeError
from evaluator.probes.outliers import (
    NEIGHBOUR,
    SCORES,
    auroc,
    calibrated,
    fit_reference,
    p_values,
    reference_warnings,
    split_reference,
)


def draws(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_each_score_is_what_it_says_by_brute_force() -> None:
    reference, samples = draws(80, 6) * [5, 3, 1, 1, 0.1, 0.1] + 2, draws(9, 6, seed=1) * 3
    fitted = fit_reference(reference)
    scores = fitted.scores(samples)
    centred = samples - reference.mean(0)
    np.testing.assert_allclose(scores["euclidean"], np.linalg.norm(centred, axis=1))
    precision = np.linalg.pinv(np.cov(reference, rowvar=False))
    expected = np.sqrt(np.einsum("nd,de,ne->n", centred, precision, centred))
    np.testing.assert_allclose(scores["mahalanobis"], expected)
    distances = np.sort(np.linalg.norm(samples[:, None] - reference, axis=2), axis=1)
    np.testing.assert_allclose(scores["neighbours"], distances[:, NEIGHBOUR - 1])
    values, vectors = np.linalg.eigh(np.cov(reference, rowvar=False))
    shares = np.cumsum(values[::-1]) / values.sum()
    kept = vectors[:, ::-1][:, : int(np.argmax(shares >= 0.95)) + 1]
    outside = centred - centred @ kept @ kept.T
    np.testing.assert_allclose(scores["residual"], np.linalg.norm(outside, axis=1))
    assert set(scores) == set(SCORES)


def test_directions_that_never_varied_count_in_the_residual_only() -> None:
    reference = np.concatenate([draws(50, 3), np.zeros((50, 2))], axis=1)
    beside = reference.mean(0, keepdims=True)
    beside[0, 3] += 1e6
    scores = fit_reference(reference).scores(beside)
    assert scores["mahalanobis"][0] == pytest.approx(0, abs=1e-6)
    assert scores["residual"][0] == pytest.approx(1e6)


def test_scores_do_not_depend_on_where_the_features_lie() -> None:
    reference, samples = draws(60, 4), draws(5, 4, seed=1)
    here = fit_reference(reference).scores(samples)
    there = fit_reference(reference + 1e6).scores(samples + 1e6)
    for name in SCORES:
        np.testing.assert_allclose(there[name], here[name], rtol=1e-8)
    assert not here["residual"].any(), "four even directions are all kept: nothing is outside"


@pytest.mark.parametrize("dim", [30, 70, 120])
def test_usual_samples_get_even_p_values(dim: int) -> None:
    flagged = dict.fromkeys(SCORES, 0)
    rng = np.random.default_rng(dim)
    for _ in range(200):
        reference, usual = rng.normal(size=(100, dim)), rng.normal(size=(50, dim))
        parts = split_reference(100, rng)
        found = calibrated(fit_reference(reference[parts.fitted]), reference[parts.held_out], usual)
        for name, (_, p) in found.items():
            flagged[name] += int((p <= 0.1).sum())
    for name, count in flagged.items():
        # 2/21 are expected: 20 held-out samples allow p-values of 1/21, 2/21, …
        assert count / 10_000 == pytest.approx(2 / 21, abs=0.02), name


def test_p_values_count_the_held_out_samples_at_least_as_unusual() -> None:
    found = p_values([1.0, 2.0, 2.0, 3.0], [0.0, 2.0, 2.5, 9.0])
    np.testing.assert_allclose(found, [1.0, 4 / 5, 2 / 5, 1 / 5])


def test_what_each_score_is_good_at_is_what_it_finds() -> None:
    """An isotropic shift: Mahalanobis. A leading direction: Euclidean. One never seen: residual."""
    scale = np.array([10.0] * 2 + [0.1] * 18)
    reference, usual = draws(2000, 20) * scale, draws(500, 20, seed=1) * scale
    fitted = fit_reference(reference)

    def areas(shift: np.ndarray) -> dict[str, float]:
        outliers = draws(500, 20, seed=2) * scale + shift
        ours, theirs = fitted.scores(usual), fitted.scores(outliers)
        return {name: auroc(ours[name], theirs[name]).value for name in SCORES}

    small = areas(np.array([0.0] * 2 + [0.2] * 18))
    assert small["mahalanobis"] > 0.95 > 0.6 > small["euclidean"]
    assert small["residual"] > 0.95
    leading = areas(np.array([30.0] + [0.0] * 19))
    assert leading["euclidean"] > 0.9
    assert leading["residual"] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("decimals", [None, 0])
def test_the_area_is_scikit_learns_ties_and_all(decimals: int | None) -> None:
    usual, outliers = draws(80, 1)[:, 0], draws(60, 1, seed=1)[:, 0] + 0.7
    if decimals is not None:
        usual, outliers = usual.round(decimals), outliers.round(decimals)
    labels = [0] * 80 + [1] * 60
    found = auroc(usual, outliers)
    assert found.value == pytest.approx(roc_auc_score(labels, [*usual, *outliers]), abs=1e-12)
    assert found.low < found.value < found.high
    mirrored = auroc(-usual, -outliers)
    assert mirrored == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low))


def test_delongs_variance_is_that_of_its_definition() -> None:
    usual, outliers = draws(25, 1)[:, 0], draws(15, 1, seed=1)[:, 0] + 1
    above = (outliers[:, None] > usual).astype(float)
    spread = np.sqrt(above.mean(1).var(ddof=1) / 15 + above.mean(0).var(ddof=1) / 25)
    area = above.mean()
    reach = norm.ppf(0.975) * spread / (area * (1 - area))
    low = 1 / (1 + np.exp(-(np.log(area / (1 - area)) - reach)))
    assert auroc(usual, outliers).low == pytest.approx(low)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_the_areas_interval_covers_the_truth(shift: float) -> None:
    rng = np.random.default_rng(0)
    true, covered, rounds = norm.cdf(shift / np.sqrt(2)), 0, 400
    for _ in range(rounds):
        found = auroc(rng.normal(size=40), rng.normal(size=30) + shift)
        covered += found.low <= true <= found.high
    assert covered / rounds >= 0.925, "of 95 %"


def test_sets_that_do_not_overlap_have_an_interval_with_width() -> None:
    found = auroc(np.arange(10.0), np.arange(20.0, 40.0))
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(0.025**0.1), "ten pairs in order by chance in 2.5 %"
    mirrored = auroc(np.arange(20.0, 40.0), np.arange(10.0))
    assert mirrored == pytest.approx((0.0, 0.0, 1 - 0.025**0.1))


def test_the_split_is_seeded_and_whole() -> None:
    first, again = (split_reference(50, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.held_out, again.held_out)
    assert sorted([*first.fitted, *first.held_out]) == list(range(50))
    assert len(first.held_out) == 10


def test_warnings_name_few_samples_and_many_dimensions() -> None:
    assert reference_warnings(500, 64) == ()
    few, wide = reference_warnings(80, 256)
    assert "below 100" in few
    assert "80 reference samples for 256 dimensions" in wide


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ProbeError, match="expected more than 5 reference samples"):
        fit_reference(draws(5, 2))
    with pytest.raises(ProbeError, match="got copies of one"):
        fit_reference(np.ones((20, 2)))
    with pytest.raises(ProbeError, match="expected features of 3 dimensions"):
        fit_reference(draws(20, 3)).scores(draws(2, 4))
    with pytest.raises(ProbeError, match="expected finite numbers"):
        fit_reference(np.full((20, 2), np.nan))
    with pytest.raises(ProbeError, match="at least 2 samples on each side, got 1 and 3"):
        auroc([1.0], [1.0, 2.0, 3.0])
