"""From the numbers of two runs to differences: interval, p, and what to think of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluator.comparison.family import shown_p
from evaluator.comparison.records import Agreement, Changed, Difference, Movers, Span
from evaluator.errors import MetricError
from evaluator.statistics.contingency import mcnemar
from evaluator.statistics.paired import (
    paired_jackknife,
    paired_mean_interval,
    sign_flip_test,
    sums_by_prompt,
)
from evaluator.text import count_of

if TYPE_CHECKING:
    from evaluator.comparison.pairs import Pairs
    from evaluator.comparison.values import Scores
    from evaluator.metrics.intervals import Interval
    from evaluator.metrics.results import Result

Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]

ROUNDING = 1e-12
"""An interval narrower than this has no width but that of rounding."""
NO_WIDTH = (
    "no interval: leaving any prompts out gives this same difference, which says little of how it "
    "would vary"
)

FEWEST_PROMPTS = 5
"""Of fewer prompts, or groups of them, there is no interval: Student's quantile of so few is right
for normal differences alone, and a jackknife of so few hardly sees how a number bends."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How sure the differences are to be made."""

    level: float
    """Confidence of intervals; 1 minus it is the share of false findings that is allowed."""
    permutations: int
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """What the differences of one metric have in common."""

    extractor: str | None
    fingerprint: str | None
    reference: str | None
    group: tuple[str, str] | None
    letters: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Draft:
    """A difference before the tests of all metrics are corrected together."""

    difference: Difference
    least: float = 0.0
    """The smallest p that its test could have given."""


def of_scores(
    scores: Scores, prompts: Integers, members: Booleans, frame: Frame, settings: Settings
) -> Draft:
    """The paired difference of two means, over the pairs in which both samples have a score."""
    a, b = scores.values
    both = np.isfinite(a) & np.isfinite(b) & members
    n, clusters = int(both.sum()), prompts[both]
    if n == 0:
        why = "expected a pair in which both samples have a score, got none"
        return Draft(not_comparable(scores.name, scores.higher_is_better, why, frame))
    first, second = a[both], b[both]
    differences = second - first
    warnings, span, tested, count = [], None, None, len(np.unique(clusters))
    why = _too_few(count, "prompts", settings.level)
    if not why:
        tested = sign_flip_test(
            sums_by_prompt(differences, clusters),
            permutations=settings.permutations,
            seed=settings.seed,
        )
    if count < FEWEST_PROMPTS:
        warnings.append(_no_interval(count, "prompts"))
    else:
        around = paired_mean_interval(differences, clusters, level=settings.level)
        largest = float(max(np.abs(first).max(), np.abs(second).max()))
        if around.high - around.low > ROUNDING * largest:
            span = _span(around)
        else:
            warnings.append(NO_WIDTH)
    if left := int(members.sum()) - n:
        pairs = count_of(left, "pair is", "pairs are")
        warnings.append(f"{pairs} left out: one of the two samples has no finite score")
    found = _draft(scores.name, scores.higher_is_better, frame)
    return Draft(
        replace(
            found,
            baseline=float(first.mean()),
            other=float(second.mean()),
            difference=float(differences.mean()),
            n=n,
            num_prompts=count,
            interval=span,
            p=tested.p if tested else None,
            test=tested.method if tested else "",
            why=why,
            agreement=_agreement(scores, first, second) if scores.marks else None,
            warnings=tuple(warnings),
        ),
        tested.least if tested else 0.0,
    )


def of_results(
    a: Result, b: Result, num_prompts: int, frame: Frame, settings: Settings
) -> Draft:  # fmt: skip
    """The difference of two numbers of whole sets, from jackknives over the same prompts."""
    if a.value is None or b.value is None:
        lacking = [(frame.letters[side], r) for side, r in enumerate((a, b)) if r.value is None]
        why = "; ".join(f"{letter}: {' '.join(r.warnings)}" for letter, r in lacking)
        return Draft(not_comparable(a.name, a.higher_is_better, why, frame))
    difference = b.value - a.value
    found = replace(
        _draft(a.name, a.higher_is_better, frame),
        baseline=float(a.value),
        other=float(b.value),
        difference=float(difference),
        n=min(a.n, b.n),
        num_prompts=num_prompts,
        warnings=_both(a.warnings, b.warnings, frame.letters),
    )
    seen = a.jackknife, b.jackknife
    if seen[0] is None or seen[1] is None:
        why = "not tested: a number without a jackknife, for want of prompts or by its nature"
        return Draft(replace(found, why=why))
    try:
        sets = paired_jackknife(seen[0], seen[1], difference=difference, level=settings.level)
    except MetricError as error:
        return Draft(replace(found, why=f"not tested: {error}"))
    if sets.interval.high - sets.interval.low <= ROUNDING * max(1.0, abs(a.value)):
        why = "not tested: leaving any group of prompts out changes the difference by nothing"
        return Draft(replace(found, why=why))
    count = sets.contributions.size
    if count >= FEWEST_PROMPTS:
        found = replace(found, interval=_span(sets.interval))
    else:
        warnings = (*found.warnings, _no_interval(count, "groups of prompts"))
        found = replace(found, warnings=warnings)
    if why := _too_few(count, "groups of prompts", settings.level):
        return Draft(replace(found, why=why))
    tested = sign_flip_test(
        sets.contributions, permutations=settings.permutations, seed=settings.seed
    )
    test = f"{tested.method} groups of prompts"
    return Draft(replace(found, p=tested.p, test=test), tested.least)


def _too_few(count: int, what: str, level: float) -> str:
    """Why so few units are not tested: no outcome could be a finding, so none is to be corrected.

    Leaving such tests out of a family is Tarone's improvement of it (1990): what can never be
    rejected cannot be rejected in error.
    """
    least, enough = 2.0 ** (1 - count), math.ceil(1.0 - math.log2(1.0 - level) - 1e-9)
    if least <= 1.0 - level + 1e-12:
        return ""
    said = f", of which no outcome has a p below {shown_p(least)}" if count > 1 else ""
    return (
        f"not tested: expected at least {enough} {what}, got {count}{said}; evaluate more prompts"
    )


def _no_interval(count: int, what: str) -> str:
    return (
        f"no interval: expected at least {FEWEST_PROMPTS} {what}, got {count}, which say too "
        "little of others; evaluate more prompts"
    )


def of_values(name: str, higher: bool | None, values: tuple[float, float], n: int, prompts: int,
              frame: Frame) -> Draft:  # fmt: skip
    """The bare difference of two numbers that nothing more is known of."""
    return Draft(
        replace(
            _draft(name, higher, frame),
            baseline=values[0],
            other=values[1],
            difference=values[1] - values[0],
            n=n,
            num_prompts=prompts,
            why="not tested: a metric of your own is not computed again; write scores of single "
            "samples (`sample_rows`, with `means`) to have its mean tested",
        )
    )


def not_comparable(name: str, higher: bool | None, why: str, frame: Frame) -> Difference:
    """A number that could not be compared, and why."""
    return replace(_draft(name, higher, frame), verdict="not comparable", why=why)


def movers(scores: Scores, pairs: Pairs, prompts: Sequence[str | None], most: int) -> Movers | None:
    """The pairs whose score changed most, both ways; None where none did."""
    a, b = scores.values
    differences = np.where(np.isfinite(a) & np.isfinite(b), b - a, 0.0)
    order = np.argsort(differences, kind="stable")
    fell = [i for i in order[:most] if differences[i] < 0.0]
    rising = np.argsort(-differences, kind="stable")[:most]
    rose = [i for i in rising if differences[i] > 0.0]

    def rows(chosen: list[int]) -> tuple[Changed, ...]:
        keys = pairs.keys.take(np.array(chosen, np.int64)).to_pylist() if chosen else []
        return tuple(
            Changed(key, int(pairs.indices[i]), prompts[i] or "", float(a[i]), float(b[i]),
                    float(differences[i]))
            for key, i in zip(keys, chosen, strict=True)
        )  # fmt: skip

    if not rose and not fell:
        return None
    return Movers(scores.name, scores.higher_is_better, rows(rose), rows(fell))


def _draft(name: str, higher: bool | None, frame: Frame) -> Difference:
    return Difference(
        name=name,
        higher_is_better=higher,
        baseline=None,
        other=None,
        difference=None,
        n=0,
        num_prompts=0,
        verdict="not tested",
        why="",
        extractor=frame.extractor,
        fingerprint=frame.fingerprint,
        reference=frame.reference,
        group=frame.group,
    )


def _span(interval: Interval) -> Span:
    return Span(interval.low, interval.high, interval.level, interval.method, interval.covers)


def _agreement(
    scores: Scores, first: NDArray[np.float64], second: NDArray[np.float64]
) -> Agreement:
    """McNemar's counts; the better of the two values that marks take is a pass, else the larger."""
    top = max(float(first.max()), float(second.max()))
    bottom = min(float(first.min()), float(second.min()))
    line = 0.5 * (top + bottom) if top > bottom else 0.5
    if scores.higher_is_better is False:
        return Agreement(*mcnemar(first < line, second < line))
    return Agreement(*mcnemar(first > line, second > line))


def _both(a: Sequence[str], b: Sequence[str], letters: tuple[str, str]) -> tuple[str, ...]:
    """Warnings of both runs: those they share once, the others with the run's letter."""
    shared = [warning for warning in a if warning in b]
    mine = [f"{letters[0]}: {warning}" for warning in a if warning not in b]
    theirs = [f"{letters[1]}: {warning}" for warning in b if warning not in a]
    return (*shared, *mine, *theirs)
