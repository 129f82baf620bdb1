"""Compare runs: pair their samples, compute both sides on the pairs, and say what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from evaluator.comparison.family import judged
from evaluator.comparison.matching import Side, check_wanted, chosen
from evaluator.comparison.opened import OpenedRun, open_runs
from evaluator.comparison.pairing import PairingDraft, Request
from evaluator.comparison.pairs import Pairs
from evaluator.comparison.records import Comparison, Pairing, Refusal, RunFacts
from evaluator.comparison.values import Scores
from evaluator.errors import EvaluatorError, RunDirectoryError

SETTINGS = (
    "model", "revision", "scheduler", "steps", "guidance_scale", "height", "width", "dtype",
    "seed", "images_per_prompt",
)  # fmt: skip
"""Facts of a run that are named where two differ in them."""


class Compared(NamedTuple):
    """A comparison, and the scores of every pair behind it."""

    comparison: Comparison
    pairs: dict[str, tuple[Pairs, tuple[Scores, ...]]]
    """Letter of the other run → its pairs with the baseline, and their scores."""


def compare_runs(
    paths: Sequence[Path], request: Request | None = None, say: Callable[[str], None] | None = None
) -> Compared:
    """Compare the runs at `paths` with the first of them; `say` is told what is being done.

    Raises ConfigError or RunDirectoryError where the paths or names are wrong. What cannot be
    compared becomes a refusal of the result.
    """
    request, say = request or Request(), say or (lambda line: None)
    opened = open_runs(paths)
    baseline = opened[0]
    sides = _sides(opened)
    if request.metrics is not None:
        check_wanted(sides, request.metrics)
    choice = chosen(sides, request.metrics)
    try:
        facts = [baseline.facts()]
    except EvaluatorError as error:
        raise RunDirectoryError(f"{baseline.run.path}: the baseline cannot be read: {error}") from (
            error
        )
    drafts, compared = list[PairingDraft](), {}
    for other in opened[1:]:
        say(f"{baseline.letter} and {other.letter}: {baseline.name} and {other.name}")
        draft = PairingDraft(baseline, other, request, say)
        try:
            facts.append(other.facts())
            known = baseline.has_settings and other.has_settings
            draft.fill(_different(facts[0], facts[-1]) if known else ())
        except EvaluatorError as error:
            if len(facts) < len(drafts) + 2:
                facts.append(_unreadable(other))
            draft.refusals.append(Refusal(f"run {other.letter}", str(error)))
        drafts.append(draft)
        if draft.pairs is not None:
            compared[other.letter] = draft.pairs, tuple(draft.scores)
    narrowed = choice is not None and bool(choice.told)
    pairings = _judged(drafts, request.level, narrowed=narrowed)
    comparison = Comparison(
        tuple(facts), pairings, request.tag, request.level, request.permutations, choice
    )
    return Compared(comparison, compared)


def _judged(drafts: list[PairingDraft], level: float, *, narrowed: bool) -> tuple[Pairing, ...]:
    """The pairings; tests of all pairs and of groups are two families over all runs."""
    whole, grouped = (
        [d for draft in drafts for d in draft.drafts if (d.difference.group is None) == overall]
        for overall in (True, False)
    )
    done = {
        id(before): after
        for family in (whole, grouped)
        for before, after in zip(family, judged(family, level, narrowed=narrowed), strict=True)
    }
    return tuple(draft.pairing([done[id(d)] for d in draft.drafts]) for draft in drafts)


def _sides(opened: Sequence[OpenedRun]) -> list[Side]:
    """The runs that something was asked of."""
    found = []
    for each in opened:
        try:
            if each.asked is not None:
                each.asked.resolved()
                found.append(Side(each.letter, each.asked))
        except EvaluatorError:
            continue  # said where the run is compared
    return found


def _different(a: RunFacts, b: RunFacts) -> tuple[tuple[str, str, str], ...]:
    """The settings in which two runs differ."""
    rows = ((name, getattr(a, name), getattr(b, name)) for name in SETTINGS)
    return tuple(
        (name.replace("_", " "), _told(first), _told(second))
        for name, first, second in rows
        if first != second
    )


def _told(value: object) -> str:
    return "—" if value is None else str(value)


def _unreadable(opened: OpenedRun) -> RunFacts:
    nothing = dict.fromkeys(("revision", "scheduler", "steps", "guidance_scale", "height", "width",
                             "dtype", "seed", "images_per_prompt"))  # fmt: skip
    return RunFacts(
        letter=opened.letter, name=opened.name, path=str(opened.run.path), model="", n=0,
        n_expected=0, **nothing,  # type: ignore[arg-type]  # all of them may be None
    )  # fmt: skip
