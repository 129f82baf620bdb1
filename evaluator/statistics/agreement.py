"""How far people agree: with each other, with themselves, and with the truth.

Coefficients are 1 for perfect agreement and 0 for what chance would give; below 0, people
agree less than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluator.errors import MetricError
from evaluator.metrics.intervals import Interval, grouped_jackknife
from evaluator.statistics.clustering import share_interval, share_p_value

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MISSING = -1
"""The label of an answer that was not given."""

COVERS_ITEMS = "the coefficient over prompts drawn like these, with these raters"
COVERS_SHARE = "the share over items and raters drawn like these"


@dataclass(frozen=True, slots=True)
class Agreement:
    """A coefficient or a share, and what it stands on."""

    value: float | None
    """None where it is not defined; `remark` says why."""
    interval: Interval | None
    num_items: int
    """Items that count: those with at least two answers."""
    num_answers: int
    """Answers to these items."""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """A share, its interval, and its test against chance."""

    value: float
    interval: Interval | None
    p_value: float | None
    """Two-sided, of the share being that of chance."""
    n: int


def cohen_kappa(first: ArrayLike, second: ArrayLike) -> float | None:
    """Agreement of two raters on the same items (Cohen 1960): labels (N,) each.

    (observed - expected) / (1 - expected), where chance gives each rater their own shares of
    labels. None where both gave one and the same label throughout: chance explains everything.
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise MetricError(
            f"Cohen's kappa: expected two answers to each of at least 1 item, got {a.shape} and "
            f"{b.shape}; leave out items that only one of them answered"
        )
    labels = np.union1d(a, b)
    shares_a = np.array([(a == label).mean() for label in labels])
    shares_b = np.array([(b == label).mean() for label in labels])
    return _beyond_chance(float((a == b).mean()), float(shares_a @ shares_b))


def fleiss_kappa(counts: ArrayLike) -> float | None:
    """Agreement of m raters on each item (Fleiss 1971): counts (N, categories), rows sum to m."""
    table = np.asarray(counts, dtype=np.float64)
    raters = table.sum(axis=1) if table.ndim == 2 else np.zeros(0)
    if not raters.size or raters.min() != raters.max() or raters[0] < 2:
        raise MetricError(
            "Fleiss' kappa: expected the same number of answers, at least 2, to every item, got "
            f"{sorted(set(raters.tolist()))}; use Krippendorff's alpha where answers are missing"
        )
    m = raters[0]
    observed = float(((np.square(table).sum(axis=1) - m) / (m * (m - 1.0))).mean())
    return _beyond_chance(observed, float(np.square(table.sum(axis=0) / table.sum()).sum()))


def krippendorff_alpha(answers: ArrayLike) -> float | None:
    """Agreement where answers may be missing, nominal labels (Krippendorff 2011).

    `answers` (items, raters): labels from 0, `MISSING` where there is none. 1 - D_o / D_e from the
    coincidences of labels within items; items with one answer do not count. None where fewer than
    two labels were given at all: nothing varies that raters could agree about.
    """
    counts = label_counts(answers)
    paired = counts[counts.sum(axis=1) >= 2.0]
    size = paired.sum(axis=1)
    totals = paired.sum(axis=0)
    n = totals.sum()
    expected = n**2 - np.square(totals).sum()
    if not size.size or expected == 0.0:
        return None
    observed = ((np.square(size) - np.square(paired).sum(axis=1)) / (size - 1.0)).sum()
    return float(1.0 - (n - 1.0) * observed / expected)


def label_counts(answers: ArrayLike) -> Floats:
    """How often each label was given to each item: (items, labels) from (items, raters)."""
    table = np.asarray(answers, dtype=np.int64)
    counts = np.zeros((len(table), int(table.max(initial=MISSING)) + 1))
    items, raters = np.nonzero(table != MISSING)
    np.add.at(counts, (items, table[items, raters]), 1.0)
    return counts


def _beyond_chance(observed: float, expected: float) -> float | None:
    return None if expected >= 1.0 else (observed - expected) / (1.0 - expected)


def rater_agreement(
    answers: ArrayLike,
    *,
    prompts: ArrayLike | None = None,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
) -> Agreement:
    """Krippendorff's alpha of answers (items, raters) with its interval.

    The interval is the delete-a-group jackknife of `evaluator.metrics.intervals` over `prompts`
    (items,), each item its own without them: seeded, and free of the duplicated items of a
    bootstrap.
    """
    table = np.asarray(answers, dtype=np.int64)
    enough = (table != MISSING).sum(axis=1) >= 2 if table.ndim == 2 else np.zeros(0, np.bool_)
    kept = table[enough] if table.ndim == 2 else table[:0]
    labels = None if prompts is None else np.asarray(prompts)[enough]
    num = int((kept != MISSING).sum())
    value = krippendorff_alpha(kept)
    if value is None:
        remark = (
            "no item has two answers"
            if not len(kept)
            else "all answers are the same: nothing varies that raters could agree about"
        )
        return Agreement(None, None, len(kept), num, remark)
    interval, remark = _over_items(
        lambda chosen: krippendorff_alpha(kept[chosen]),
        _clusters(labels, len(kept)), value, groups, seed, level,
    )  # fmt: skip
    return Agreement(value, interval, len(kept), num, remark)


def pair_agreement(
    first: ArrayLike,
    second: ArrayLike,
    *,
    prompts: ArrayLike | None = None,
    groups: int = 20,
    seed: int = 0,
    level: float = 0.95,
) -> Agreement:
    """Cohen's kappa of two answers to each item, with its interval over `prompts` (N,), as above.

    Two raters on the same items, or raters who met items twice: those of several raters to one
    item are alike, and belong to one prompt.
    """
    a, b = np.asarray(first), np.asarray(second)
    value = cohen_kappa(a, b)
    if value is None:
        return Agreement(None, None, a.size, 2 * a.size, "all answers are the same")
    interval, remark = _over_items(
        lambda chosen: cohen_kappa(a[chosen], b[chosen]),
        _clusters(prompts, a.size), value, groups, seed, level,
    )  # fmt: skip
    return Agreement(value, interval, a.size, 2 * a.size, remark)


def _clusters(prompts: ArrayLike | None, num: int) -> Integers:
    """(N,) number of each item's prompt; its own where prompts are not told."""
    if prompts is None:
        return np.arange(num)
    return np.unique(np.asarray(prompts), return_inverse=True)[1].astype(np.int64)


def _over_items(
    statistic: Callable[[Integers], float | None],
    clusters: Integers,
    value: float,
    groups: int,
    seed: int,
    level: float,
) -> tuple[Interval | None, str]:
    """The interval over clusters (N,) of items, or None and why."""
    num = len(np.unique(clusters))

    def defined(chosen: Integers) -> float:
        found = statistic(chosen)
        if found is None:
            raise MetricError("undefined")
        return found

    if num < 2:
        return None, "no interval: expected items of at least 2 prompts"
    if value >= 1.0:
        return None, "no interval: everybody agreed everywhere"
    try:
        found = grouped_jackknife(
            defined, clusters, covers=COVERS_ITEMS, groups=min(groups, num), seed=seed,
            level=level, bounds=(-1.0, 1.0),
        )  # fmt: skip
    except MetricError:
        return None, "no interval: too few items for the labels to vary without some of them"
    return found, ""


def share_against_chance(
    marks: ArrayLike,
    clusterings: Sequence[ArrayLike],
    *,
    chance: float = 0.5,
    covers: str = COVERS_SHARE,
    level: float = 0.95,
) -> Share:
    """The share of `marks` (N,), true or from 0 to 1, its interval, and p against `chance`.

    How often people told real from generated, or chose the left side. Interval and test as
    `share_interval` and `share_p_value`; without them where a clustering has a single cluster.
    """
    values = np.asarray(marks, dtype=np.float64)
    if not values.size:
        raise MetricError("share: expected at least 1 answer, got none; collect answers")
    value = float(values.mean())
    if any(len(np.unique(np.asarray(c))) < 2 for c in clusterings):
        return Share(value, None, None, values.size)
    interval = share_interval(values, clusterings, covers=covers, level=level)
    p_value = share_p_value(values, clusterings, chance=chance)
    return Share(value, interval, p_value, values.size)
