"""Which metrics two runs can be compared by: asked of both, with the same features and reference.

A number that stands on other features, another reference or other options is another number: it
is refused by name, with what differs.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from evaluator.aggregate.asked import Asked, AskedMetric, CustomPlan, ReferencePlace
from evaluator.comparison.records import Chosen, Refusal
from evaluator.errors import ConfigError

FREE_OPTIONS = {"groups", "seed", "level"}
"""Options that say how sure a number is, not what it is: the baseline's are taken for both."""
AGAIN = "change its configuration and run the same command again: no image is generated again"


class Matched(NamedTuple):
    """A metric as both runs were asked for it."""

    baseline: AskedMetric
    other: AskedMetric


class Side(NamedTuple):
    """A run and what was asked of it."""

    letter: str
    asked: Asked


def match(
    baseline: Side, other: Side, wanted: Sequence[str] | None
) -> tuple[list[Matched], list[Refusal]]:
    """The metrics that both runs can be compared by, in the baseline's order, and the others."""
    mine, theirs = (_wanted(side, wanted) for side in (baseline, other))
    matched, refusals, used = list[Matched](), list[Refusal](), set[int]()
    for metric in mine:
        alike = [
            (place, candidate)
            for place, candidate in enumerate(theirs)
            if _question(candidate) == _question(metric) and place not in used
        ]
        if not alike:
            refusals.append(_missing(metric, other.letter))
            continue
        reasons = [(place, c, _why_not(metric, c, baseline, other)) for place, c in alike]
        place, candidate, why = next((r for r in reasons if r[2] is None), reasons[0])
        used.add(place)
        if why is None:
            matched.append(Matched(metric, candidate))
        else:
            refusals.append(Refusal(title(metric), why))
    left = [metric for place, metric in enumerate(theirs) if place not in used]
    refusals += [_missing(metric, baseline.letter) for metric in left]
    return matched, refusals


def title(metric: AskedMetric) -> str:
    """What a refusal calls a metric: its number, or its spelling where it has several."""
    names = metric.plan.result_names
    return names[0] if len(names) == 1 else metric.plan.name


def check_wanted(sides: Sequence[Side], wanted: Sequence[str]) -> None:
    """Raise ConfigError for names that no run was asked for, and where there is no name."""
    if not wanted:
        raise ConfigError("--metrics: expected names of metrics, got none; leave it out for all")
    known = sorted({name for side in sides for metric in _metrics(side) for name in _names(metric)})
    faults = []
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else "ask the runs for it first"
            faults.append(f"expected one of {', '.join(known) or 'none'}, got '{name}'; {hint}")
    if faults:
        raise ConfigError("--metrics: the runs were not asked for these:", tuple(faults))


def chosen(sides: Sequence[Side], wanted: Sequence[str] | None) -> Chosen | None:
    """What the names choose among all metrics that the runs were asked for; None of no choice."""
    if wanted is None:
        return None
    known = {title(metric) for side in sides for metric in _metrics(side)}
    taken = {title(metric) for side in sides for metric in _wanted(side, wanted)}
    return Chosen(tuple(wanted), len(taken), len(known))


def with_references_of(baseline: Side, other: Side, metric: Matched) -> Asked:
    """What was asked of the other run, its references taken from where the baseline has them."""
    places = dict(other.asked.references)
    for mine, theirs in (
        (metric.baseline.reference, metric.other.reference),
        (metric.baseline.held_out, metric.other.held_out),
    ):
        if mine is not None and theirs is not None:
            places[mine] = baseline.asked.references[mine]
    return replace(other.asked, references=places)


def _metrics(side: Side) -> tuple[AskedMetric, ...]:
    return side.asked.resolved().metrics


def _names(metric: AskedMetric) -> set[str]:
    return {metric.plan.name, *metric.plan.result_names}


def _wanted(side: Side, wanted: Sequence[str] | None) -> list[AskedMetric]:
    return [
        metric
        for metric in _metrics(side)
        if wanted is None or any(name in _names(metric) for name in wanted)
    ]


def _question(metric: AskedMetric) -> tuple[Any, ...]:
    """What makes two numbers the same number, but for options and references."""
    plan = metric.plan
    if isinstance(plan, CustomPlan):
        return "custom", plan.name, plan.extractor, plan.input
    return plan.metric, plan.extractor, plan.input


def _missing(metric: AskedMetric, letter: str) -> Refusal:
    why = f"expected it of both runs, got none of {letter}: add it to {letter}'s metrics"
    return Refusal(title(metric), f"{why}; {AGAIN}")


def _why_not(mine: AskedMetric, theirs: AskedMetric, baseline: Side, other: Side) -> str | None:
    """What makes two askings of one metric two questions; None where nothing does."""
    ours, others = (
        {key: value for key, value in metric.plan.options.items() if key not in FREE_OPTIONS}
        for metric in (mine, theirs)
    )
    letters = baseline.letter, other.letter
    if ours != others:
        differs = ", ".join(
            f"{key} {ours.get(key)!r} in {letters[0]} and {others.get(key)!r} in {letters[1]}"
            for key in sorted({*ours, *others})
            if ours.get(key) != others.get(key)
        )
        return f"expected the same options, got {differs}; {AGAIN}"
    extractor = mine.plan.extractor
    prints = [side.asked.fingerprints.get(extractor) for side in (baseline, other)]
    for letter, fingerprint in zip(letters, prints, strict=True):
        if fingerprint is None:
            return (
                f"expected features of '{extractor}' in both, got none such in {letter}; run its "
                "`evaluator run` command again with it under features"
            )
    if prints[0] != prints[1]:
        return (
            f"expected features of one extractor, got '{extractor}' with fingerprint "
            f"{str(prints[0])[:8]} in {letters[0]} and {str(prints[1])[:8]} in {letters[1]}: other "
            "weights, resize or dtype, or images kept by another codec; embed both with one"
        )
    for kind, first, second in (
        ("reference", mine.reference, theirs.reference),
        ("held-out set", mine.held_out, theirs.held_out),
    ):
        why = _other_reference(kind, (first, second), baseline, other, extractor)
        if why is not None:
            return why
    return None


def _other_reference(
    kind: str, names: tuple[str | None, str | None], baseline: Side, other: Side, extractor: str
) -> str | None:
    if names == (None, None):
        return None
    places, contents = [], []
    for side, name in zip((baseline, other), names, strict=True):
        places.append(side.asked.references.get(name or ""))
        asked = side.asked.request.get("references")
        contents.append(asked.get(name) if isinstance(asked, Mapping) else None)
    if _same_reference(places[0], places[1], contents, extractor):
        return None
    letters = baseline.letter, other.letter
    return (
        f"expected one {kind} for both, got '{names[0]}' in {letters[0]} and '{names[1]}' in "
        f"{letters[1]}, which differ in content or features; give both the same, {AGAIN}"
    )


def _same_reference(
    mine: ReferencePlace | None, theirs: ReferencePlace | None, contents: list[Any], extractor: str
) -> bool:
    """Whether two references are made of the same images, or moments, by the same extractor."""
    if mine is None or theirs is None:
        return False
    if mine.fingerprints.get(extractor) != theirs.fingerprints.get(extractor):
        return False
    if contents[0] is not None and contents[1] is not None:
        return bool(contents[0] == contents[1])
    return (mine.run, mine.moments) == (theirs.run, theirs.moments)
