"""Ranks of one column as ranges, and draws of its values: by prompts where their scores are there.

Means over the same prompts are compared prompt by prompt, numbers of whole sets by the groups of
prompts that their jackknives left out; columns draw the same prompts, or groups, together: a set
that is lucky in one metric is so in others. All other values are compared by the standard errors
behind their intervals, as if the runs were independent, and in all their columns a run is lucky at
once; where they share prompts that is too careful.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluator.leaderboard.collect import ReadRun
from evaluator.leaderboard.columns import Draft, excluded_alone
from evaluator.leaderboard.jackknives import Grouped, grouped
from evaluator.leaderboard.questions import Answer
from evaluator.leaderboard.records import RankRange
from evaluator.leaderboard.samples import PromptNumbers, influence_of, tables_of
from evaluator.metrics.intervals import t_quantile
from evaluator.statistics.ranking import Ranges, paired_ranges, places, unpaired_ranges
from evaluator.statistics.standings import drawn_values, resampled_means

Floats = NDArray[np.float64]

PAIRED = "paired by prompt"
GROUPED = "paired by groups of prompts"
UNPAIRED = "from the intervals"
NOT_RANKED = "not ranked"

_GROUPS = re.compile(r"\((\d+) groups\)")


@dataclass(frozen=True, slots=True)
class Ranked:
    """What is known of the ranks in one column."""

    runs: tuple[int, ...]
    """Places of the ranked runs."""
    ranks: dict[int, RankRange]
    """Place of a run → its range."""
    places: dict[int, int]
    """Place of a run → rank of its bare value."""
    values: Floats
    """(R,) of the ranked runs."""
    draws: Floats
    """(B, R) values in resamples."""
    compared: str
    """`PAIRED`, `GROUPED`, `UNPAIRED` or `NOT_RANKED`."""
    remarks: tuple[str, ...]


class Tables:
    """Scores of single samples of all runs, found when they are first asked for."""

    def __init__(self, runs: Sequence[ReadRun]) -> None:
        self._runs = runs
        self._found = [tables_of(run.path) for run in runs]
        self._prompts: dict[str, PromptNumbers] = {}

    def influences(self, answers: Sequence[Answer]) -> tuple[list[Floats | None], int]:
        """(P,) influence of each prompt on each answer, None where it is not known; and P."""
        prompts = self._prompts.setdefault(answers[0].question.prompts or "", PromptNumbers())
        found = [
            influence_of(self._found[a.run].get(a.record.name, []), _value(a), prompts)
            for a in answers
        ]
        return found, len(prompts)

    def made_elsewhere(self, run: int) -> bool:
        """Whether its images existed before the run: their prompts are not known."""
        return self._runs[run].provenance.kind == "images"

    def name(self, run: int) -> str:
        """The run's directory, for a remark."""
        return str(self._runs[run].path)


def rank(draft: Draft, tables: Tables, *, level: float, num_resamples: int, seed: int) -> Ranked:
    """The ranks of a column. `seed` draws; columns with the same prompts resample the same."""
    excluded_alone(draft)
    runs = tuple(draft.ranked)
    higher = draft.higher_is_better
    if not runs or higher is None:
        nothing = np.empty((num_resamples, 0))
        return Ranked((), {}, {}, nothing[0], nothing, NOT_RANKED, ())
    answers = [draft.answers[run] for run in runs]
    values = np.array([_value(answer) for answer in answers])
    influence, remarks = _paired(draft, answers, tables)
    elsewhere = [tables.name(a.run) for a in answers if tables.made_elsewhere(a.run)]
    if draft.of_means and elsewhere and len(answers) > 1:
        remarks.append(
            f"{draft.label}: the images of {_several(elsewhere)} were made elsewhere; whether for "
            "the same prompts is not known"
        )
    errors = np.array([_error(answer) for answer in answers])
    compared = PAIRED
    if influence is not None:
        extra = np.where(np.abs(influence).sum(axis=1) > 0, 0.0, errors[:, 0])
    elif (sets := _grouped(draft, answers)) is not None:
        compared, influence = GROUPED, sets.influence
        extra = np.where(sets.still, errors[:, 0], np.sqrt(sets.extra))
    if influence is not None:
        ranges = paired_ranges(
            values, influence, higher_is_better=higher, extra_errors=extra, level=level, seed=seed
        )
        # groups are few: what is drawn of them has their whole variance, G/(G - 1)
        groups = influence.shape[1] if compared == GROUPED else np.inf
        shares = influence / np.sqrt(1.0 - 1.0 / groups)
        draws = resampled_means(values, shares, num_resamples=num_resamples, seed=seed)
        draws += _lucky(runs, extra, higher, num_resamples, seed)
    else:
        compared, sizes = UNPAIRED, errors[:, 0]
        ranges = unpaired_ranges(
            values, sizes, errors[:, 1], higher_is_better=higher, level=level, seed=seed
        )
        draws = values + _lucky(runs, sizes, higher, num_resamples, seed)
    found = places(values, higher_is_better=higher)
    return Ranked(
        runs,
        dict(zip(runs, _ranges(ranges), strict=True)),
        {run: int(place) for run, place in zip(runs, found, strict=True)},
        values,
        draws,
        compared,
        tuple(remarks),
    )


def _lucky(
    runs: Sequence[int], errors: Floats, higher: bool, num_resamples: int, seed: int
) -> Floats:
    """(B, R) normal errors: what makes a run better, or worse, does so in every column."""
    drawn = [
        drawn_values([0.0], [error], num_resamples=num_resamples, seed=seed + 1 + run)
        for run, error in zip(runs, errors, strict=True)
    ]
    lucky = np.concatenate(drawn, axis=1)
    return lucky if higher else -lucky


def _grouped(draft: Draft, answers: Sequence[Answer]) -> Grouped | None:
    """The jackknives of a column of sets over the same prompts; None where one lacks them."""
    known = draft.question.prompts is not None
    if not known or any(answer.question.prompts is None for answer in answers):
        return None
    return grouped([answer.record for answer in answers])


class _Error(NamedTuple):
    size: float
    """Standard error."""
    degrees: float
    """Its degrees of freedom."""


def _ranges(found: Ranges) -> list[RankRange]:
    among = len(found.low)
    return [RankRange(int(a), int(b), among) for a, b in zip(found.low, found.high, strict=True)]


def _paired(
    draft: Draft, answers: Sequence[Answer], tables: Tables
) -> tuple[Floats | None, list[str]]:
    """(R, P) influences of a column of means over the same prompts; None where one lacks them."""
    if not draft.of_means or draft.question.prompts is None:
        return None, []
    if any(answer.question.prompts is None for answer in answers):
        return None, []
    found, num_prompts = tables.influences(answers)
    lacking = [tables.name(a.run) for a, each in zip(answers, found, strict=True) if each is None]
    if lacking:
        return None, [
            f"{draft.label}: compared by the intervals, less sharply than prompt by prompt: no "
            f"scores of single samples that give the number in {_several(lacking)}; "
            "`evaluator aggregate` writes them"
        ]
    rows = [np.pad(row, (0, num_prompts - len(row))) for row in found if row is not None]
    return (np.stack(rows), []) if num_prompts > 1 else (None, [])


def _several(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _value(answer: Answer) -> float:
    value = answer.record.value
    assert value is not None, "a number without a value is not ranked"
    return value


def _error(answer: Answer) -> _Error:
    """Standard error and degrees of freedom behind an interval; the longer side of a skew one.

    A jackknife says its groups. Other intervals have one degree less than prompts, of which there
    are at least as many as samples for each image of a prompt; infinitely many are near enough.
    """
    interval, value = answer.record.interval, _value(answer)
    assert interval is not None, "a number without an interval is not ranked"
    groups = _GROUPS.search(str(interval.get("method", "")))
    degrees = max(int(groups[1]) - 1, 1) if groups else max(answer.record.n - 1, 1)
    reach = max(interval["high"] - value, value - interval["low"], 0.0)
    return _Error(reach / t_quantile(interval["level"], degrees), degrees)
