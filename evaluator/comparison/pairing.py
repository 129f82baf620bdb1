"""One run against the baseline: what is compared, how, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evaluator.aggregate.asked import Asked, CustomPlan
from evaluator.aggregate.tags import MAX_VALUES
from evaluator.comparison.differences import (
    Draft,
    Frame,
    Settings,
    movers,
    not_comparable,
    of_results,
    of_scores,
    of_values,
)
from evaluator.comparison.family import tested_once
from evaluator.comparison.matching import Matched, Side, match, title
from evaluator.comparison.opened import OpenedRun
from evaluator.comparison.pairs import Pairs, pair
from evaluator.comparison.records import Difference, Movers, Pairing, Refusal
from evaluator.comparison.values import Numbers, Scores, Values, custom_numbers
from evaluator.errors import EvaluatorError, InputError
from evaluator.statistics.paired import PERMUTATIONS

CHANGED = 10
"""Samples that changed most, each way, of each score."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be compared."""

    tag: str | None = None
    metrics: tuple[str, ...] | None = None
    """Names of metrics or numbers; None: all that both runs have."""
    permutations: int = PERMUTATIONS
    changed: int = CHANGED
    level: float = 0.95


@dataclass
class PairingDraft:
    """One run against the baseline, before all tests are corrected together."""

    baseline: OpenedRun
    other: OpenedRun
    request: Request
    say: Callable[[str], None]
    pairs: Pairs | None = None
    refusals: list[Refusal] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    settings: tuple[tuple[str, str, str], ...] = ()
    drafts: list[Draft] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    movers: list[Movers] = field(default_factory=list)

    def fill(self, settings: tuple[tuple[str, str, str], ...]) -> None:
        """Pair the samples and compare every metric that both runs were asked for."""
        self.settings = settings
        asked = self._asked()
        pairs = pair(self.baseline, self.other)
        self.refusals += pairs.refusals
        self.warnings += pairs.warnings
        self.pairs = pairs
        if len(pairs) == 0:
            return
        sides = Side(self.baseline.letter, asked[0]), Side(self.other.letter, asked[1])
        matched, refused = match(*sides, self.request.metrics)
        self.refusals += refused
        if not matched and not refused:
            why = "expected a metric, got none; add one to both runs and run them again"
            self.refusals.append(Refusal("metrics", why))
        values, groups = Values(self.baseline, self.other, asked, pairs), self._groups(pairs)
        everyone = np.ones(len(pairs), np.bool_)
        for metric in matched:
            self.say(f"  {title(metric.baseline)}")
            numbers = self._metric(values, metric, None, everyone, None)
            for value, members in groups:
                self._metric(values, metric, value, members, numbers)
        self.drafts = tested_once(self.drafts, of_one_metric=False)
        prompts = self._prompts(pairs) if self.scores and self.request.changed else []
        for scores in self.scores if prompts else ():
            found = movers(scores, pairs, prompts, self.request.changed)
            self.movers += [found] if found is not None else []

    def _asked(self) -> tuple[Asked, Asked]:
        """What was asked of both; of an unfinished run, what its features allow."""
        mine, theirs = self.baseline.asked, self.other.asked
        if mine is None and theirs is None:
            raise InputError(
                "expected asked.json, which a run writes when all of its samples are there, in "
                f"one of the runs at least, got none in {self.baseline.run.path} and "
                f"{self.other.run.path}; finish one with its `evaluator run` command"
            )
        for opened in (self.baseline, self.other):
            if opened.asked is None:
                self.warnings.append(
                    f"nothing was asked of {opened.letter} yet: it is taken to be asked what the "
                    "other was"
                )
        if mine is None:
            assert theirs is not None
            return self.baseline.asked_like(theirs), theirs
        return mine, theirs or self.other.asked_like(mine)

    def _metric(
        self, values: Values, metric: Matched, value: str | None, members: NDArray[np.bool_],
        known: Numbers | None,
    ) -> Numbers | None:  # fmt: skip
        """Add the differences of one metric, of all pairs or of a group; returns its numbers."""
        plan, request = metric.baseline.plan, self.request
        group = None if value is None else (str(request.tag), value)
        frame = Frame(
            plan.extractor, values.asked[0].fingerprints.get(plan.extractor),
            metric.baseline.reference, group, (self.baseline.letter, self.other.letter),
        )  # fmt: skip
        settings = Settings(request.level, request.permutations)
        try:
            numbers = self._numbers(values, metric, group, members, known)
        except EvaluatorError as error:
            names = plan.result_names
            self.drafts += [Draft(not_comparable(n, None, str(error), frame)) for n in names]
            return None
        if numbers is None:
            self.drafts += self._own(metric, frame, members)
            return None
        prompts = values.pairs.prompts
        found = {
            s.name: of_scores(s, prompts, members, frame, settings) for s in numbers.scores
        }  # fmt: skip
        count = len(np.unique(prompts[members]))
        for a, b in numbers.results:
            found[a.name] = of_results(a, b, count, frame, settings)
        order = [name for name in plan.result_names if name in found]
        drafts = [found[name] for name in [*order, *(set(found) - set(order))]]
        self.drafts += tested_once(drafts, of_one_metric=True)
        if group is None:
            known_names = {score.name for score in self.scores}
            self.scores += [
                s._replace(name=f"{s.name}-{frame.reference}") if s.name in known_names else s
                for s in numbers.scores
            ]
        return numbers

    def _numbers(
        self, values: Values, metric: Matched, group: tuple[str, str] | None,
        members: NDArray[np.bool_], known: Numbers | None,
    ) -> Numbers | None:  # fmt: skip
        """The numbers of both runs; None of a metric of the user's own without scores."""
        if group is not None and known is not None and not known.results:
            return known  # means of scores: the members are all that changes
        if group is None:
            scores = values.scores(metric)
            custom = isinstance(metric.baseline.plan, CustomPlan)
            names = set(metric.baseline.plan.result_names)
            if scores and (custom or names == {score.name for score in scores}):
                return Numbers(scores, ())
        if isinstance(metric.baseline.plan, CustomPlan):
            return None
        if group is None:
            return values.stored(metric) or values.computed(metric)
        return values.computed(metric, group[1], group[0], members)

    def _own(self, metric: Matched, frame: Frame, members: NDArray[np.bool_]) -> list[Draft]:
        """The bare values of a metric of the user's own, where they are of the pairs alone."""
        assert self.pairs is not None
        mine = custom_numbers(self.baseline, metric.baseline)
        theirs = {record.name: record for record in custom_numbers(self.other, metric.other)}
        drafts = []
        for record in mine:
            other = theirs.get(record.name)
            why = None
            if frame.group is not None:
                why = "a metric of your own is not computed again for groups"
            elif other is None or record.value is None or other.value is None:
                why = "expected a number in both runs, got none in one; aggregate it again"
            elif any(self.pairs.only) or not (record.n == other.n == len(self.pairs)):
                why = (
                    "expected a number of the paired samples alone, got one of others too, and a "
                    "metric of your own is not computed again; run both on the same prompts"
                )
            if why is not None or other is None:
                found = not_comparable(record.name, record.higher_is_better, str(why), frame)
                drafts.append(Draft(found))
                continue
            pair_of = float(record.value), float(other.value)
            higher, prompts = record.higher_is_better, self.pairs.num_prompts
            drafts.append(of_values(record.name, higher, pair_of, record.n, prompts, frame))
        if not drafts:
            why = "expected its number in metrics.json of both runs, got none; aggregate again"
            self.refusals.append(Refusal(title(metric.baseline), why))
        return drafts

    def _groups(self, pairs: Pairs) -> list[tuple[str, NDArray[np.bool_]]]:
        """The values of the tag with their pairs, in alphabetical order; why there are none."""
        tag = self.request.tag
        if tag is None:
            return []
        told = [opened.column("tags") for opened in (self.baseline, self.other)]
        found = np.array(
            [
                dict(told[0][i] or ()).get(tag) or dict(told[1][j] or ()).get(tag)
                for i, j in zip(*pairs.places, strict=True)
            ],
            dtype=object,
        )
        names = sorted({value for value in found if value is not None})
        if names and len(names) <= MAX_VALUES:
            return [(value, found == value) for value in names]
        known = sorted({key for tags in told[0] for key, _ in tags or ()})
        why = f"expected prompts with the tag '{tag}', got none; they have {', '.join(known[:20])}"
        if not known:
            why = f"expected prompts with the tag '{tag}', got prompts without tags"
        if names:
            why = (
                f"expected at most {MAX_VALUES} values of the tag '{tag}', got {len(names):,}; "
                "group by a coarser one"
            )
        self.refusals.append(Refusal(f"groups by {tag}", why))
        return []

    def _prompts(self, pairs: Pairs) -> list[str | None]:
        """The prompt of each pair."""
        told = [opened.column("prompt") for opened in (self.baseline, self.other)]
        return [told[0][i] or told[1][j] for i, j in zip(*pairs.places, strict=True)]

    def pairing(self, differences: list[Difference]) -> Pairing:
        """The record of it all."""
        pairs = self.pairs
        return Pairing(
            letter=self.other.letter,
            n=0 if pairs is None else len(pairs),
            num_prompts=0 if pairs is None else pairs.num_prompts,
            only_baseline=0 if pairs is None else pairs.only[0],
            only_other=0 if pairs is None else pairs.only[1],
            settings=self.settings,
            refusals=tuple(self.refusals),
            warnings=tuple(self.warnings),
            differences=tuple(differences),
            movers=tuple(self.movers),
        )
