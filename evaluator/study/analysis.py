"""From decoded answers to numbers: win rates, strengths, agreement, discrimination, bias.

Repeated trials count for self-agreement and bias only. Intervals are clustered by prompt, and,
from five raters on, by rater too; with fewer, raters are held fixed and the results say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from evaluator.metrics.intervals import Interval
from evaluator.statistics.agreement import (
    MISSING,
    Agreement,
    Share,
    pair_agreement,
    rater_agreement,
    share_against_chance,
)
from evaluator.statistics.bradley_terry import ELO_SCALE, BradleyTerry, elo, fit_bradley_terry
from evaluator.study.answers import Answer
from evaluator.study.records import LEFT, REAL, TIE, Rater, Study
from evaluator.study.results import PairResult, RaterResult, RunResult, StudyResults
from evaluator.study.warnings import MIN_RATERS, warnings_of

COVERS_BOTH = "the share over prompts and raters drawn like these"
COVERS_PROMPTS = "the share over prompts drawn like these, with these raters"


def analyse(study: Study, answers: Sequence[Answer]) -> StudyResults:
    """The numbers of a study, from the answers there are."""
    asked = [one for one in answers if not one.item.check]
    main = [one for one in asked if not one.trial.repeat]
    pairs = study.kind == "pairs"
    fit = _strengths(study, main) if pairs else None
    runs = [_run_result(study, main, k, fit) for k, source in enumerate(study.sources)]
    agreement = _agreement(study, main)
    same, kappa = _self_agreement(asked)
    bias = _bias(asked)
    right = [float((one.answer == REAL) == _is_real(study, one)) for one in main]
    found = StudyResults(
        study=study.id,
        kind=study.kind,
        question=study.question,
        n=len(answers),
        n_expected=study.num_trials,
        runs=tuple(r for r, source in zip(runs, study.sources, strict=True) if not source.real),
        pairs=tuple(_pair_results(study, main)) if pairs else (),
        raters=tuple(_rater_result(study, rater, answers) for rater in study.raters),
        accuracy=None if pairs or not right else _share(right, main),
        real=None if pairs else runs[-1],
        agreement=agreement,
        self_agreement=kappa,
        same_again=same,
        bias=bias,
        warnings=(),
    )
    return warnings_of(study, found, fit)


def clusterings(answers: Sequence[Answer]) -> list[NDArray[np.str_]]:
    """Labels of prompts, and of raters where there are enough."""
    prompts = np.array([one.item.images[0].key for one in answers])
    raters = np.array([one.rater for one in answers])
    return [prompts, raters] if len(np.unique(raters)) >= MIN_RATERS else [prompts]


def _share(values: Sequence[float], answers: Sequence[Answer]) -> Share:
    labels = clusterings(answers)
    covers = COVERS_BOTH if len(labels) == 2 else COVERS_PROMPTS
    return share_against_chance(values, labels, covers=covers)


def _is_real(study: Study, one: Answer) -> bool:
    return study.sources[one.item.images[0].source].real


def _expected(study: Study, sources: set[int]) -> int:
    """Answers that all raters would give to items with these sources, each once."""
    shown = [{image.source for image in item.images} for item in study.items if not item.check]
    return sum(sources <= those for those in shown) * len(study.raters)


def _pair_results(study: Study, main: Sequence[Answer]) -> list[PairResult]:
    found = []
    for i, j in combinations(range(len(study.sources)), 2):
        own = [one for one in main if [shown.source for shown in one.item.images] == [i, j]]
        scores = [one.score for one in own]
        share = _share(scores, own) if own else None
        found.append(
            PairResult(
                first=study.sources[i].name,
                second=study.sources[j].name,
                wins=sum(score == 1.0 for score in scores),
                losses=sum(score == 0.0 for score in scores),
                ties=sum(score == 0.5 for score in scores),
                n=len(own),
                n_expected=_expected(study, {i, j}),
                win_rate=None if share is None else share.value,
                interval=None if share is None else share.interval,
            )
        )
    return found


def _strengths(study: Study, main: Sequence[Answer]) -> BradleyTerry:
    places = [[shown.source for shown in one.item.images] for one in main]
    first, second = ([place[k] for place in places] for k in (0, 1))
    scores = [one.score for one in main]
    labels = clusterings(main) if main else []
    return fit_bradley_terry(
        np.array(first, dtype=np.int64),
        np.array(second, dtype=np.int64),
        scores,
        num_models=len(study.sources),
        clusterings=labels,
    )


def _run_result(
    study: Study, main: Sequence[Answer], source: int, fit: BradleyTerry | None
) -> RunResult:
    """One source: how often it won, or was taken for real."""
    own = [one for one in main if source in {shown.source for shown in one.item.images}]
    if study.kind == "pairs":
        values = [
            one.score if one.item.images[0].source == source else 1.0 - one.score for one in own
        ]
    else:
        values = [float(one.answer == REAL) for one in own]
    share = _share(values, own) if own else None
    named = study.sources[source]
    base = {"name": named.name, "path": named.path, "n": len(own)}
    score = None if share is None else share.value
    interval = None if share is None else share.interval
    expected = _expected(study, {source})
    if fit is None:
        return RunResult(**base, n_expected=expected, score=score, interval=interval)  # type: ignore[arg-type]
    strength = fit.strengths[source]
    return RunResult(
        **base,  # type: ignore[arg-type]
        n_expected=expected,
        score=score,
        interval=interval,
        strength=strength.value,
        strength_interval=strength.interval,
        elo=strength.elo,
        elo_interval=_on_elo_scale(strength.interval),
        tier=strength.tier,
    )


def _on_elo_scale(interval: Interval | None) -> Interval | None:
    if interval is None:
        return None
    covers = f"the Elo-like score (1000 + {ELO_SCALE:.1f} times the log-odds)"
    return Interval(
        elo(interval.low), elo(interval.high), interval.level, interval.method, covers
    )  # fmt: skip


def _label(one: Answer) -> int:
    """What was said of the item, whatever side it was on: 0, 1, or 2 for no difference."""
    if one.answer in (LEFT, "right"):
        return int(one.choice or 0)
    return 2 if one.answer == TIE else int(one.answer == REAL)


def _agreement(study: Study, main: Sequence[Answer]) -> Agreement:
    """Krippendorff's alpha over all items; a rater's missing answers are left out."""
    place = {rater.name: k for k, rater in enumerate(study.raters)}
    table = np.full((len(study.items), len(place)), MISSING)
    for one in main:
        table[one.trial.item, place[one.rater]] = _label(one)
    prompts = [item.images[0].key for item in study.items]
    return rater_agreement(table, prompts=prompts, seed=study.seed)


def _twice(answers: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    """Both answers of a rater to an item that they met twice."""
    first = {(one.rater, one.trial.item): one for one in answers if not one.trial.repeat}
    again = [one for one in answers if one.trial.repeat]
    return [
        (first[one.rater, one.trial.item], one)
        for one in again
        if (one.rater, one.trial.item) in first
    ]


def _self_agreement(answers: Sequence[Answer]) -> tuple[Share | None, Agreement | None]:
    both = _twice(answers)
    if not both:
        return None, None
    labels = np.array([(_label(first), _label(second)) for first, second in both])
    same = (labels[:, 0] == labels[:, 1]).astype(np.float64)
    again = [second for _, second in both]
    prompts = [one.item.images[0].key for one in again]
    share = _share(same.tolist(), again)
    return share, pair_agreement(labels[:, 0], labels[:, 1], prompts=prompts)


def _bias(answers: Sequence[Answer]) -> Share | None:
    """How often the first button was chosen: the design gives it half of what is right or wrong."""
    chose = [one for one in answers if one.answer != TIE]
    if not chose:
        return None
    return _share([float(one.answer in (LEFT, REAL)) for one in chose], chose)


def _rater_result(study: Study, rater: Rater, answers: Sequence[Answer]) -> RaterResult:
    every = [one for one in answers if one.rater == rater.name]
    own = [one for one in every if not one.item.check]
    attentive = [one.choice == 0 for one in every if one.item.check]
    chose = [one.answer in (LEFT, REAL) for one in own if one.answer != TIE]
    same = [_label(first) == _label(second) for first, second in _twice(own)]
    seconds = [one.seconds for one in own if one.seconds is not None]
    right = [(one.answer == REAL) == _is_real(study, one) for one in own if not one.trial.repeat]
    return RaterResult(
        name=rater.name,
        n=len(every),
        n_expected=len(rater.trials),
        checks=len(attentive),
        checks_failed=attentive.count(False),
        repeats=len(same),
        same_again=float(np.mean(same)) if same else None,
        first_side=float(np.mean(chose)) if chose else None,
        median_seconds=float(np.median(seconds)) if seconds else None,
        share_right=float(np.mean(right)) if right and study.kind != "pairs" else None,
    )
