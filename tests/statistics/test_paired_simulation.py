"""How often intervals of differences cover the truth, and how often noise is called a difference.

Both runs generate the same prompts. What a prompt adds is shared, each image has its own noise,
the reference is fixed. Where nothing differs but the noise (another seed), 5 % may be found.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from evaluator.metrics.frechet import frechet_distance
from evaluator.metrics.intervals import Replicates, jackknife_groups, jackknife_interval
from evaluator.metrics.kernel import (
    CUBIC,
    KernelDistanceValue,
    PolynomialKernel,
    Subsets,
    group_sums,
    kernel_sums,
)
from evaluator.statistics.paired import (
    PairedSets,
    paired_jackknife,
    paired_mean_interval,
    sign_flip_test,
    sums_by_prompt,
)

GROUPS = 20
Jackknife = Callable[[np.ndarray, np.ndarray, np.ndarray], Replicates]


def frechet(features: np.ndarray, reference: np.ndarray, groups: np.ndarray) -> Replicates:
    real = reference.mean(0), np.cov(reference.T)

    def distance(kept: np.ndarray) -> float:
        return frechet_distance(features[kept].mean(0), np.cov(features[kept].T), *real)

    value = distance(np.ones(len(groups), bool))
    left_out = [distance(groups != group) for group in range(GROUPS)]
    found = jackknife_interval(value, left_out, np.bincount(groups), covers="").replicates
    assert found is not None
    return found


def kernel(features: np.ndarray, reference: np.ndarray, groups: np.ndarray) -> Replicates:
    values = (torch.from_numpy(each) for each in (features, reference))
    sums = group_sums(*values, groups, GROUPS, PolynomialKernel(3, None, 1.0))
    left_out = [sums.unbiased(leave_out=group) for group in range(GROUPS)]
    found = jackknife_interval(sums.unbiased(), left_out, sums.sizes, covers="").replicates
    assert found is not None
    return found


class World:
    """Features of `prompts` prompts with `images` each, as one run or another makes them."""

    def __init__(self, seed: int, *, prompts: int, images: int, dim: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.clusters = np.repeat(np.arange(prompts), images)
        self.shared = self.rng.normal(size=(prompts, dim))

    def run(self, *, shift: float = 0.0, spread: float = 1.0) -> np.ndarray:
        noise = self.rng.normal(size=(len(self.clusters), self.shared.shape[1]))
        return self.shared[self.clusters] * 0.8 + spread * 0.6 * noise + shift


def margin(expected: float, rounds: int) -> float:
    """What chance allows around a share: three standard errors."""
    return 3.0 * float(np.sqrt(expected * (1.0 - expected) / rounds))


@pytest.mark.parametrize("images", [1, 4])
def test_of_means_noise_is_called_a_difference_in_5_of_100(images):
    found, covered, rounds, shift = 0, 0, 600, 0.3
    for seed in range(rounds):
        world = World(seed, prompts=40, images=images, dim=1)
        a, b = world.run()[:, 0], world.run()[:, 0]
        found += sign_flip_test(sums_by_prompt(b - a, world.clusters), permutations=499).p <= 0.05
        moved = world.run(shift=shift, spread=2.0)[:, 0] - a
        interval = paired_mean_interval(moved, world.clusters)
        covered += interval.low <= shift <= interval.high
    assert found / rounds == pytest.approx(0.05, abs=margin(0.05, rounds))
    assert covered / rounds == pytest.approx(0.95, abs=margin(0.95, rounds))


@pytest.mark.slow
@pytest.mark.parametrize("of", [frechet, kernel])
def test_of_sets_noise_is_called_a_difference_in_about_5_of_100(of):
    found, covered, rounds = 0, 0, 300
    reference = np.random.default_rng(99).normal(size=(400, 4)) + 0.2
    for seed in range(rounds):
        world = World(seed, prompts=150, images=2, dim=4)
        groups = jackknife_groups(world.clusters, groups=GROUPS, seed=seed)
        a, b = (of(world.run(), reference, groups) for _ in range(2))
        pair = paired_jackknife(a, b, difference=b.value - a.value)
        found += sign_flip_test(pair.contributions).p <= 0.05
        covered += pair.interval.low <= 0.0 <= pair.interval.high
    # a jackknife errs on the side of too wide: 2-4 % of such pairs are told apart
    assert 0.01 <= found / rounds <= 0.05 + margin(0.05, rounds)
    assert covered / rounds >= 0.95 - margin(0.95, rounds)


@pytest.mark.slow
@pytest.mark.parametrize("of", [frechet, kernel])
def test_of_sets_intervals_cover_a_true_difference(of):
    differences, intervals, found, rounds = [], [], 0, 300
    reference = np.random.default_rng(99).normal(size=(400, 4)) + 0.2
    for seed in range(rounds):
        world = World(seed, prompts=150, images=2, dim=4)
        groups = jackknife_groups(world.clusters, groups=GROUPS, seed=seed)
        a = of(world.run(), reference, groups)
        b = of(world.run(shift=-0.15, spread=1.2), reference, groups)
        pair = paired_jackknife(a, b, difference=b.value - a.value)
        differences.append(b.value - a.value)
        intervals.append((pair.interval.low, pair.interval.high))
        found += sign_flip_test(pair.contributions).p <= 0.05
    truth = np.mean(differences)  # what is expected at this number of samples
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert covered == pytest.approx(0.95, abs=margin(0.95, rounds))
    assert found / rounds > 0.5


def pair_of_kernel_distances(
    seed: int, reference: np.ndarray, *, shift: float, prompts: int = 150
) -> tuple[PairedSets, PairedSets]:
    """The difference of two runs over all samples, and over 50 subsets of 100 of them."""
    world = World(seed, prompts=prompts, images=2, dim=4)
    groups = jackknife_groups(world.clusters, groups=GROUPS, seed=seed)
    subsets = Subsets.drawn(2 * prompts, len(reference), 50, 100, seed)
    found, means, real = [], [], torch.from_numpy(reference)
    for features in (world.run(), world.run(shift=shift)):
        sums, drawn = kernel_sums(torch.from_numpy(features), real, groups, GROUPS, CUBIC, subsets)
        left_out = [sums.unbiased(leave_out=group) for group in range(GROUPS)]
        seen = jackknife_interval(sums.unbiased(), left_out, sums.sizes, covers="").replicates
        assert seen is not None
        found.append((seen, drawn))
        means.append(drawn.mean)

    def noisy(seen: Replicates, drawn: KernelDistanceValue) -> Replicates:
        return seen._replace(extra_variance=drawn.std**2 / 50)

    (a, _), (b, _) = found
    whole = paired_jackknife(a, b, difference=b.value - a.value)
    by_subsets = [noisy(*each) for each in found]
    return whole, paired_jackknife(*by_subsets, difference=means[1] - means[0])


@pytest.mark.slow
def test_the_p_of_a_kernel_distance_is_that_of_the_interval_beside_it():
    """Shifted so that about half of the runs are told apart: there a p and an interval disagree."""
    reference = np.random.default_rng(99).normal(size=(400, 4)) + 0.2
    rounds, agree, shift = 150, [0, 0], -0.06
    centres, intervals = [], []
    for seed in range(rounds):
        whole, subsets = pair_of_kernel_distances(seed, reference, shift=shift)
        small = sign_flip_test(whole.contributions).p <= 0.05
        for place, each in enumerate((whole, subsets)):
            agree[place] += small != (each.interval.low <= 0.0 <= each.interval.high)
        centres.append((whole.interval.low + whole.interval.high) / 2)
        intervals.append((subsets.interval.low, subsets.interval.high))
    truth = np.mean(centres)
    covered = np.mean([low <= truth <= high for low, high in intervals])
    # all samples: both say the same; the p of all samples is no p of the subsets' mean
    assert agree[0] / rounds >= 0.98
    assert agree[1] < agree[0]
    # the variance of drawing the subsets is counted in full: too wide, never too narrow
    assert covered >= 0.95 - margin(0.95, rounds)
