"""Ranks that say what is known of them: ranges that all hold at once, from pairwise differences.

Mogstad, Romano, Shaikh and Wilhelm 2023, "Inference for Ranks with Applications to Mobility across
Neighbourhoods and Academic Achievement across Countries", section 3: a run is at least at rank
1 + the number of runs that are better beyond noise, and at most at n - the number that are worse.
With a critical value for the largest studentised difference over all pairs, every true rank lies
in its range with the stated confidence, all of them at once. Their resampling is replaced by
normal draws with the covariance that was found; no step-down. Few prompts say too little of how the
differences vary together: there the critical value is Student's with Bonferroni's correction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluator.metrics.intervals import t_quantile

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NUM_DRAWS = 4_000
"""Draws behind a critical value: at level 0.95 it is exact to 0.35 points of coverage."""

MANY_PROMPTS = 200
PROMPTS_A_RUN = 10
"""Below so many prompts, and so many for each run, drawn critical values are too small: of 30 runs
that are alike, any two are told apart in 15 % of cases with 20 prompts, in 9 % with 50."""

SAME = 1e-12
"""Variance of a difference, against the variances of its two values, that is rounding alone."""


class Ranges(NamedTuple):
    """The ranks that each of R runs may have, 1 is best."""

    low: Integers
    """(R,) 1 + how many are better beyond noise."""
    high: Integers
    """(R,) R - how many are worse beyond noise."""
    better: NDArray[np.bool_]
    """(R, R) whether the run of the row is better beyond noise than that of the column."""
    critical: float
    """How many standard errors a difference must exceed."""


def influences(
    scores: ArrayLike, prompts: ArrayLike, num_prompts: int, *, factor: float = 1.0
) -> Floats:
    """(P,) what each prompt adds to the error of a mean: its summed residuals over N.

    `scores` (N,) belong to `prompts` (N,) numbered from 0 to P - 1; a prompt without a sample adds
    nothing. The sum of squares, times C/(C - 1) for C prompts, is the cluster-robust variance of
    `factor` times the mean (Miller 2024, section 2.2), and so it is for differences of two runs.
    """
    values = np.asarray(scores, dtype=np.float64)
    residuals = factor * (values - values.mean()) / values.size
    numbers = np.asarray(prompts, np.int64)
    return np.bincount(numbers, weights=residuals, minlength=num_prompts).astype(np.float64)


def paired_ranges(
    values: ArrayLike,
    influence: ArrayLike,
    *,
    higher_is_better: bool,
    extra_errors: ArrayLike | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Ranges:
    """Ranges of R means over the same P prompts, from their differences prompt by prompt.

    `values` (R,) are the means and `influence` (R, P) their `influences`. `extra_errors` (R,) are
    standard errors of chance that no other run shares, 0 by default. The studentised differences
    are taken as Student's t with P - 1 degrees of freedom; of few prompts each with its own
    variance, so that the level is cut by the number of pairs.
    """
    numbers, shares = np.asarray(values, np.float64), np.asarray(influence, np.float64)
    prompts = shares.shape[1]
    if prompts < 2:
        raise ValueError(f"expected at least 2 prompts, got {prompts}; evaluate more prompts")
    covariance = prompts / (prompts - 1) * (shares @ shares.T)
    if extra_errors is not None:
        covariance += np.diag(np.square(np.asarray(extra_errors, np.float64)))
    errors = _errors_of_differences(covariance)
    if prompts < max(MANY_PROMPTS, PROMPTS_A_RUN * numbers.size):
        pairs = max(1, int(np.count_nonzero(np.triu(errors, 1))))
        critical = t_quantile(1.0 - (1.0 - level) / pairs, prompts - 1)
        return _ranges(numbers, errors, critical, higher_is_better)
    generator = np.random.default_rng(seed)
    draws = generator.standard_normal((NUM_DRAWS, numbers.size)) @ _root(covariance)
    spread = np.sqrt(generator.chisquare(prompts - 1, NUM_DRAWS) / (prompts - 1))
    largest = np.zeros(NUM_DRAWS)
    for i in range(numbers.size - 1):
        known = np.flatnonzero(errors[i, i + 1 :] > 0) + i + 1
        if known.size:
            ratios = np.abs(draws[:, known] - draws[:, [i]]) / errors[i, known]
            np.maximum(largest, ratios.max(axis=1), out=largest)
    return _ranges(numbers, errors, float(np.quantile(largest / spread, level)), higher_is_better)


def unpaired_ranges(
    values: ArrayLike,
    errors: ArrayLike,
    degrees: ArrayLike,
    *,
    higher_is_better: bool,
    level: float = 0.95,
    seed: int = 0,
) -> Ranges:
    """Ranges of R values with independent standard errors (R,) of so many degrees of freedom (R,).

    Each variance is drawn anew as its chi-squared says, so that few groups of a jackknife cost
    their width. Where runs share prompts their errors are alike, and the ranges are too wide.
    """
    numbers, deviations = np.asarray(values, np.float64), np.asarray(errors, np.float64)
    freedom = np.broadcast_to(np.asarray(degrees, np.float64), numbers.shape)
    generator = np.random.default_rng(seed)
    draws = generator.standard_normal((NUM_DRAWS, numbers.size)) * deviations
    chances = generator.chisquare(freedom, (NUM_DRAWS, numbers.size)) / freedom
    variances = np.square(deviations) * chances
    largest = np.zeros(NUM_DRAWS)
    for i in range(numbers.size - 1):
        sums = variances[:, i + 1 :] + variances[:, [i]]
        gaps = np.square(draws[:, i + 1 :] - draws[:, [i]])
        ratios = np.divide(gaps, sums, out=np.zeros_like(gaps), where=sums > 0)
        np.maximum(largest, ratios.max(axis=1), out=largest)
    between = np.sqrt(np.square(deviations)[:, None] + np.square(deviations)[None, :])
    critical = float(np.quantile(np.sqrt(largest), level))
    return _ranges(numbers, between, critical, higher_is_better)


def rank_ranges(better: ArrayLike) -> tuple[Integers, Integers]:
    """Lowest and highest ranks (R,) that pairwise findings (R, R) leave: row better than column."""
    found = np.asarray(better, dtype=bool)
    return 1 + found.sum(axis=0), found.shape[0] - found.sum(axis=1)


def places(values: ArrayLike, *, higher_is_better: bool) -> Integers:
    """(R,) rank of each value by itself: 1 + how many are better."""
    numbers = np.asarray(values, np.float64) * (1.0 if higher_is_better else -1.0)
    found: Integers = 1 + (numbers[None, :] > numbers[:, None]).sum(axis=1, dtype=np.int64)
    return found


def _ranges(values: Floats, errors: Floats, critical: float, higher_is_better: bool) -> Ranges:
    """A difference without any error is beyond noise as soon as it is one."""
    gaps = (values[:, None] - values[None, :]) * (1.0 if higher_is_better else -1.0)
    rounding = 1e-12 * np.maximum(np.abs(values[:, None]), np.abs(values[None, :]))
    better = gaps > np.maximum(critical * errors, rounding)
    low, high = rank_ranges(better)
    return Ranges(low, high, better, critical)


def _errors_of_differences(covariance: Floats) -> Floats:
    """(R, R) standard errors of the differences of R values; 0 where only rounding is left."""
    variances = np.diag(covariance)
    sums = variances[:, None] + variances[None, :]
    differences = sums - 2.0 * covariance
    return np.sqrt(np.where(differences > SAME * sums, differences, 0.0))


def _root(covariance: Floats) -> Floats:
    """The symmetric square root: unlike a factor, it does not depend on the signs of vectors."""
    spectrum, vectors = np.linalg.eigh(covariance)
    root: Floats = (vectors * np.sqrt(np.clip(spectrum, 0.0, None))) @ vectors.T
    return root
