"""The tests of all metrics as one family: which are in it, their correction, and the verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from evaluator.comparison.records import Difference, Verdict
from evaluator.metrics.catalog import quantity_of
from evaluator.statistics.multiple import holm

if TYPE_CHECKING:
    from evaluator.comparison.differences import Draft


def tested_once(drafts: Sequence[Draft], *, of_one_metric: bool) -> list[Draft]:
    """The drafts; of those that speak of one quantity (`ONE_QUANTITY`), one alone is tested.

    `of_one_metric` says which are meant: results of one metric, whose drafts these are, or results
    of several, such as FID and FID∞, among the drafts of all metrics.

    A mean over random subsets is the number of all samples with the noise of drawing them: in
    simulated pairs of runs (150 prompts, 100 subsets of 100 samples) the p of all samples and the
    interval of all samples agreed in 399 of 400, that p and the interval of the subsets in 372, and
    testing by the subsets found a true difference in 41 % instead of 46 %.
    """
    tested = {(d.difference.name, _about(d)) for d in drafts if d.difference.p is not None}
    once = []
    for draft in drafts:
        name, quantity = draft.difference.name, quantity_of(*_named(draft))
        names = quantity.names if quantity.one_metric == of_one_metric else ()
        first = next((each for each in names if (each, _about(draft)) in tested), name)
        once.append(draft if first == name else _untested(draft, first))
    return once


def _named(draft: Draft) -> tuple[str, str | None]:
    return draft.difference.name, draft.difference.extractor


def _about(draft: Draft) -> tuple[object, ...]:
    """What results of one quantity have in common besides it."""
    found = draft.difference
    return found.extractor, found.fingerprint, found.reference, found.group


def _untested(draft: Draft, first: str) -> Draft:
    why = f"not tested apart: {first} is of the same quantity, and it is the one that is tested"
    return replace(draft, difference=replace(draft.difference, p=None, test="", why=why))


def judged(drafts: Sequence[Draft], level: float, *, narrowed: bool = False) -> list[Difference]:
    """The differences with their verdicts; all tests among them are corrected as one family.

    `narrowed` says that the metrics are a choice among more, whose tests are not in the family.
    """
    tested = [draft for draft in drafts if draft.difference.p is not None]
    adjusted = iter(holm([float(draft.difference.p or 0.0) for draft in tested]).tolist())
    return [
        draft.difference
        if draft.difference.p is None
        else _judged(draft, next(adjusted), len(tested), 1.0 - level, narrowed=narrowed)
        for draft in drafts
    ]


def _judged(draft: Draft, p: float, family: int, allowed: float, *, narrowed: bool) -> Difference:
    found = draft.difference
    verdict: Verdict = "no difference found"
    tests = f"{family} tests" if family > 1 else "1 test"
    over = f" after Holm's correction over {tests}" if family > 1 or narrowed else ""
    if narrowed:
        over += " of the chosen metrics alone"
    why = f"p = {shown_p(p)}{over}"
    if p <= allowed + 1e-12:
        rose = (found.difference or 0.0) > 0.0
        verdict = "different"
        if found.higher_is_better is not None:
            verdict = "better" if rose == found.higher_is_better else "worse"
    elif draft.least * family > allowed and draft.least < 1.0:
        why += f": so few prompts cannot give less than p = {shown_p(draft.least)} before it"
    return replace(found, p_adjusted=p, family=family, verdict=verdict, why=why)


def shown_p(p: float) -> str:
    """A p for people: two significant digits, as few as tell it."""
    if p >= 0.995:
        return "1"
    if p < 1e-4:
        return f"{p:.1e}"
    return f"{p:.{max(2, 1 - math.floor(math.log10(p)))}f}"
