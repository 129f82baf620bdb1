"""What a reader must know before they trust the numbers of a study."""

from __future__ import annotations

from dataclasses import replace

from evaluator.statistics.bradley_terry import BradleyTerry
from evaluator.study.records import Study
from evaluator.study.results import RaterResult, StudyResults, p_text, percent
from evaluator.text import count_of

MIN_RATERS = 5
"""Raters from which their differences are part of intervals: of fewer, a variance says little."""

BIAS_P = 0.01
"""p below which choosing one side too often is said to be more than chance."""

FASTEST = 1.0
"""Seconds: a rater with a lower median does not look."""

LEAST_SELF_AGREEMENT = 0.7
"""Share of repeated items answered alike: who is below it beyond chance (5 %) is named."""


def warnings_of(study: Study, found: StudyResults, fit: BradleyTerry | None) -> StudyResults:
    """The results with their warnings."""
    lines = [*_raters(found), *_answers(found), *_bias(found)]
    if fit is not None:
        lines += _separation(study, fit, found)
    return replace(found, warnings=tuple(lines))


def _raters(found: StudyResults) -> list[str]:
    there = [rater for rater in found.raters if rater.n]
    lines = []
    if len(there) < MIN_RATERS:
        lines.append(
            f"{count_of(len(there), 'rater')}: intervals are clustered by prompt and "
            f"hold for these raters; ask at least {MIN_RATERS} to speak of raters in general"
        )
    for rater in there:
        if rater.median_seconds is not None and rater.median_seconds < FASTEST:
            lines.append(
                f"{rater.name} took {rater.median_seconds:.1f} seconds a question (median)"
            )
        if rater.checks_failed:
            lines.append(
                f"{rater.name} failed {rater.checks_failed} of {rater.checks} attention checks, "
                "and is counted all the same: leave the file out to see what changes"
            )
        if _answers_at_random(rater):
            lines.append(
                f"{rater.name} answered {percent(rater.same_again)} of {rater.repeats} repeated "
                "items alike"
            )
    return lines


def _answers_at_random(rater: RaterResult) -> bool:
    """Whether so few repeated items answered alike would be rare at `LEAST_SELF_AGREEMENT`."""
    from scipy.special import bdtr

    if rater.same_again is None:
        return False
    alike = round(rater.same_again * rater.repeats)
    return bool(bdtr(alike, rater.repeats, LEAST_SELF_AGREEMENT) < 0.05)


def _answers(found: StudyResults) -> list[str]:
    lines = []
    if missing := [rater.name for rater in found.raters if not rater.n]:
        lines.append(f"no answers of {', '.join(missing)}")
    lines += [
        f"{rater.name} answered {rater.n} of {rater.n_expected}"
        for rater in found.raters
        if 0 < rater.n < rater.n_expected
    ]
    return lines


def _bias(found: StudyResults) -> list[str]:
    bias = found.bias
    if bias is None or bias.p_value is None or bias.p_value >= BIAS_P:
        return []
    p = p_text(bias.p_value)
    if found.kind == "pairs":
        return [
            f"position bias: left was chosen {percent(bias.value)} of the time (p {p}); sides are "
            "balanced, so win rates are drawn towards 50 %, not to one run"
        ]
    return [
        f"raters said real {percent(bias.value)} of the time (p {p}), though half of the images "
        "are: compare the runs with each other rather than with 50 %"
    ]


def _separation(study: Study, fit: BradleyTerry, found: StudyResults) -> list[str]:
    """Why some strengths are missing, or do not compare."""
    names = [source.name for source in study.sources]
    lines = []
    if len(fit.islands) > 1 and found.n:
        groups = "; ".join(", ".join(names[k] for k in island) for island in fit.islands)
        lines.append(f"no answers link these groups of runs, so nothing is known between: {groups}")
    for island in fit.islands:
        tiers = [tier for tier in fit.tiers if tier[0] in island]
        for place, tier in enumerate(tiers[:-1]):
            upper = ", ".join(names[k] for k in tier)
            lower = ", ".join(names[k] for below in tiers[place + 1 :] for k in below)
            lines.append(
                f"{upper}: never lost to {lower}, nor drew; the Bradley-Terry difference would be "
                "infinite, so strengths compare within a tier only; ask more items"
            )
    return lines
