"""Orders over several metrics: who beats how many, how alike two orders are, and chance in both."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

AT_ONCE = 4_000_000
"""Comparisons that are held in memory together."""


def win_shares(values: ArrayLike, *, higher_is_better: bool) -> Floats:
    """(…, R) share of the other runs that each of `values` (…, R) beats; a tie is half a win.

    NaN is a run without a value: it is not compared, and its own share is NaN, as is that of a run
    that is alone.
    """
    numbers = np.asarray(values, np.float64) * (1.0 if higher_is_better else -1.0)
    rows = numbers.reshape(-1, numbers.shape[-1])
    shares: Floats = np.empty_like(rows)
    step = max(1, AT_ONCE // max(1, rows.shape[1] ** 2))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        mine, theirs = part[:, :, None], part[:, None, :]
        beaten = (mine > theirs).sum(axis=2, dtype=np.int64)
        tied = (mine == theirs).sum(axis=2, dtype=np.int64) - 1  # each equals itself
        others = (~np.isnan(part)).sum(axis=1, keepdims=True) - 1.0
        won = np.divide(
            beaten + 0.5 * tied, others, out=np.full_like(part, np.nan), where=others > 0
        )
        shares[start : start + step] = np.where(np.isnan(part), np.nan, won)
    result: Floats = shares.reshape(numbers.shape)
    return result


def mean_win_rates(shares: ArrayLike) -> Floats:
    """(…, R) mean over the metrics of win shares (M, …, R) (Liang et al. 2023, HELM).

    A metric that a run lacks is left out of its mean; NaN where it lacks all. Rounded to 12 digits,
    so that equal rates are equal whatever the order of the metrics: 0.1 + 0.2 is 0.3 + 0.
    """
    parts = np.asarray(shares, np.float64)
    known = ~np.isnan(parts)
    counts = known.sum(axis=0)
    sums = np.where(known, parts, 0.0).sum(axis=0)
    means: Floats = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return np.asarray(np.round(means, 12), np.float64)


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float | None:
    """Kendall's tau-b of two rankings (R,): 1 the same, -1 reversed; ties as Kendall 1945, eq. 3.

    Pairs with a NaN are left out. None where fewer than two runs are left, or where one ranking
    ties them all.
    """
    return _defined(kendall_taus(first, np.asarray(second, np.float64)[None, :])[0])


def kendall_taus(first: ArrayLike, others: ArrayLike) -> Floats:
    """(B,) `kendall_tau` of one ranking (R,) with each of `others` (B, R); NaN where undefined."""
    one, many = np.asarray(first, np.float64), np.asarray(others, np.float64)
    signs = np.nan_to_num(np.sign(one[:, None] - one[None, :]))
    taus = np.full(len(many), np.nan)
    for b, other in enumerate(many):
        against = np.sign(other[:, None] - other[None, :])
        both = np.where(np.isnan(against), 0.0, signs)
        against = np.nan_to_num(against) * ~np.isnan(one)[:, None] * ~np.isnan(one)[None, :]
        scale = np.sqrt(np.square(both).sum() * np.square(against).sum())
        if scale > 0:
            taus[b] = (both * against).sum() / scale
    return taus


class Steadiness(NamedTuple):
    """How an order of R runs holds in B resamples of it."""

    low: Floats
    """(R,) 2.5th percentile of the win rate."""
    high: Floats
    """(R,) 97.5th percentile."""
    first: Floats
    """(R,) share of resamples in which the run is first; those that tie share it."""
    keeps: Floats
    """(R,) share of resamples in which it has its place."""
    taus: Floats
    """(B,) Kendall's tau-b with the order itself; NaN where all are tied."""


def steadiness(rates: ArrayLike, resampled: ArrayLike, *, level: float = 0.95) -> Steadiness:
    """How win rates (R,) hold in resampled ones (B, R); NaN is a run that is nowhere ranked."""
    order, draws = np.asarray(rates, np.float64), np.asarray(resampled, np.float64)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail], axis=0)
    best = draws == np.nanmax(draws, axis=1, keepdims=True)
    first = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    keeps = np.mean([_places(draw) == _places(order) for draw in draws], axis=0)
    return Steadiness(low, high, first, keeps, kendall_taus(order, draws))


def resampled_means(
    values: ArrayLike, influence: ArrayLike, *, num_resamples: int, seed: int
) -> Floats:
    """(B, R) means of R runs over prompts drawn with replacement, the same prompts for all runs.

    `values` (R,) are the means and `influence` (R, P) what each prompt adds to them
    (`ranking.influences`); exact where every prompt has equally many samples in a run, and to the
    first order elsewhere. The same seed draws the same prompts for every metric.
    """
    means, shares = np.asarray(values, np.float64), np.asarray(influence, np.float64)
    prompts = shares.shape[1]
    generator = np.random.default_rng(seed)
    drawn = np.empty((num_resamples, means.size))
    step = max(1, AT_ONCE // prompts)
    for start in range(0, num_resamples, step):
        count = min(step, num_resamples - start)
        chosen = generator.integers(prompts, size=(count, prompts))
        times = np.stack([np.bincount(row, minlength=prompts) for row in chosen]).astype(np.float64)
        drawn[start : start + count] = means + times @ shares.T
    return drawn


def drawn_values(values: ArrayLike, errors: ArrayLike, *, num_resamples: int, seed: int) -> Floats:
    """(B, R) normal draws about R values with independent standard errors (R,)."""
    numbers, deviations = np.asarray(values, np.float64), np.asarray(errors, np.float64)
    chance = np.random.default_rng(seed).standard_normal((num_resamples, numbers.size))
    return numbers + chance * deviations


def _places(rates: Floats) -> NDArray[np.int64]:
    found: NDArray[np.int64] = 1 + (rates[None, :] > rates[:, None]).sum(axis=1, dtype=np.int64)
    return found


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
