"""C_T: SciPy's Mann–Whitney, known cells, copies and underfitting, and its interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import CtScore, ct_score, distances
from evaluator.metrics.clusters import cells_of, k_means


def z_score(train: np.ndarray, held_out: np.ndarray, new: np.ndarray) -> float:
    def to_nearest(values: np.ndarray) -> np.ndarray:
        return np.array([np.square(row - train).sum(axis=1).min() for row in values])

    m, n = len(new), len(held_out)
    u = mannwhitneyu(to_nearest(new), to_nearest(held_out)).statistic
    return (u - (m * n / 2 - 0.5)) / np.sqrt(m * n * (m + n + 1) / 12)


def test_in_one_cell_it_is_the_standardised_u_of_scipy() -> None:
    generator = np.random.default_rng(0)
    train, held_out, new = (generator.normal(size=(n, 3)) for n in (60, 40, 50))
    new[:10] = held_out[:10]  # ties
    expected = z_score(train, held_out, new)
    assert ct_score(train, held_out, new, cells=1) == pytest.approx(expected, rel=1e-12)
    single = [x.astype(np.float32) for x in (train, held_out, new)]
    double = [x.astype(np.float64) for x in single]
    assert ct_score(*single, cells=1) == ct_score(*double, cells=1)


def test_cells_are_weighted_by_their_held_out_samples_and_small_ones_left_out() -> None:
    generator = np.random.default_rng(1)
    parts = [[generator.normal(size=(n, 2)) + 100 * cell for n in sizes]
             for cell, sizes in enumerate([(50, 30, 25), (40, 10, 45), (30, 20, 20)])]  # fmt: skip
    sets = [np.concatenate([part[index] for part in parts]) for index in range(3)]
    scores = [z_score(*part) for part in parts]
    # the third cell has no more than 20 generated samples
    expected = (30 * scores[0] + 10 * scores[1]) / 40
    assert ct_score(*sets) == pytest.approx(expected, rel=1e-12)
    shuffled = [generator.permutation(values) for values in sets]
    assert ct_score(*shuffled) == pytest.approx(expected, rel=1e-12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", 7)
        assert ct_score(*sets) == pytest.approx(expected, rel=1e-12)


def test_principal_components_keep_what_differs() -> None:
    generator = np.random.default_rng(2)
    sets = [generator.normal(size=(n, 5)) for n in (80, 40, 50)]
    axes = np.linalg.qr(generator.normal(size=(90, 5)))[0]
    wide = [values @ axes.T + 3.0 for values in sets]
    assert ct_score(*wide) == pytest.approx(ct_score(*sets), rel=1e-9)


def test_copies_are_far_below_0_and_underfitting_far_above() -> None:
    generator = np.random.default_rng(3)
    train, held_out = (generator.normal(size=(n, 4)) for n in (300, 150))
    copies = train[:150] + 1e-3 * generator.normal(size=(150, 4))
    assert ct_score(train, held_out, copies) < -5.0
    assert ct_score(train, held_out, 2.0 * generator.normal(size=(150, 4))) > 2.0
    assert abs(ct_score(train, held_out, generator.normal(size=(150, 4)))) < 3.0


def test_k_means_finds_the_best_cells_of_a_small_set_and_repeats_itself() -> None:
    values = np.random.default_rng(4).normal(size=(12, 1))
    ordered = np.sort(values[:, 0])
    # on a line the best cells are runs
    best = min(
        sum(np.square(part - part.mean()).sum() for part in np.split(ordered, [i, j]))
        for i in range(1, 11)
        for j in range(i + 1, 12)
    )
    centres = k_means(values, 3, seed=0)
    cells = cells_of(values, centres)
    assert np.square(values - centres[cells]).sum() == pytest.approx(best)
    assert np.array_equal(k_means(values, 3, seed=0), centres)
    assert k_means(np.ones((5, 2)), 3, seed=0).shape == (3, 2)


def test_cells_without_samples_and_bad_options_are_refused() -> None:
    generator = np.random.default_rng(5)
    train, held_out, new = (generator.normal(size=(n, 2)) for n in (60, 40, 30))
    with pytest.raises(MetricError, match="cell . of 2: expected train and held-out samples, got"):
        ct_score(np.concatenate([train, train + 50]), held_out, new, cells=2)
    with pytest.raises(MetricError, match="more than 20 samples, got at most 20 of 20"):
        ct_score(train, held_out, new[:20], cells=1)
    with pytest.raises(MetricError, match="train: expected at least 3 samples for 3 cells, got 2"):
        ct_score(train[:2], held_out, new)
    with pytest.raises(ConfigError, match="cells: expected a whole number"):
        ct_score(train, held_out, new, cells=0)


def fed(train: np.ndarray, held_out: np.ndarray, new: np.ndarray) -> CtScore:
    metric = CtScore(train.shape[1], cells=2)
    for values, side in ((train, {"real": True}), (held_out, {"held_out": True}), (new, {})):
        places = torch.arange(len(values))
        metric.update(torch.from_numpy(values), places, places, **side)
    return metric


def test_too_few_samples_give_no_number() -> None:
    (result,) = fed(np.eye(2), np.eye(2), np.eye(2)).compute()
    assert result.value is None
    assert "got 2 generated samples, 2 and 2 others" in result.warnings[0]


def test_95_percent_intervals_cover_the_expected_score() -> None:
    """Training and held-out samples stay, generated ones are drawn again."""
    generator = np.random.default_rng(6)
    train, held_out = (generator.normal(size=(n, 3)) for n in (200, 100))
    results = [
        fed(train, held_out, 1.1 * generator.normal(size=(150, 3))).compute()[0] for _ in range(200)
    ]
    truth = np.mean([result.value for result in results])
    covered = np.mean([r.interval.low <= truth <= r.interval.high for r in results])
    assert 0.90 <= covered <= 0.99
