"""The numbers of two runs on their pairs of samples: computed by the same states as `aggregate`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evaluator.aggregate.asked import Asked, AskedMetric, CustomPlan
from evaluator.aggregate.features import prompt_numbers
from evaluator.aggregate.feed import Feed
from evaluator.aggregate.summary import MetricRecord
from evaluator.aggregate.tags import Group
from evaluator.comparison.matching import Matched, Side, with_references_of
from evaluator.comparison.opened import OpenedRun
from evaluator.comparison.pairs import Pairs
from evaluator.distributed import World
from evaluator.errors import CorruptShardError, EvaluatorError, MetricError
from evaluator.metrics.intervals import Interval, Replicates
from evaluator.metrics.results import MeanOf, Result
from evaluator.store.schemas import read_table, table_note

Floats = NDArray[np.float64]

ROWS_AT_ONCE = 4_096
"""Rows that a metric sees at a time: what a batch costs in moments is a pass over D² numbers."""


class Scores(NamedTuple):
    """One score of every pair's samples, of which a number is the mean."""

    name: str
    higher_is_better: bool | None
    values: tuple[Floats, Floats]
    """(P,) of the baseline and (P,) of the other; NaN where a sample has none, or no finite one."""
    marks: bool
    """Whether the score says pass or fail."""


class Numbers(NamedTuple):
    """One metric of both runs, with what an interval needs of it."""

    scores: tuple[Scores, ...]
    """The numbers that are means of samples' scores."""
    results: tuple[tuple[Result, Result], ...]
    """The other numbers, the baseline's first."""


@dataclass
class Values:
    """What the metrics of two runs say about their pairs."""

    baseline: OpenedRun
    other: OpenedRun
    asked: tuple[Asked, Asked]
    pairs: Pairs
    _feeds: dict[tuple[Any, ...], Feed] = field(default_factory=dict)
    _shared: dict[Hashable, Any] = field(default_factory=dict)
    """Both runs are compared with the same reference: its moments are taken once."""

    def scores(self, metric: Matched) -> tuple[Scores, ...] | None:
        """The scores behind a metric from the tables of both runs; None where one has no table.

        Tables are written at aggregation; runs of an older version have none.
        """
        if not (self.baseline.tables_are_current and self.other.tables_are_current):
            return None
        read = [
            self._table(side, opened, asked, each)
            for side, (opened, asked, each) in enumerate(
                zip((self.baseline, self.other), self.asked, metric, strict=True)
            )
        ]
        if read[0] is None or read[1] is None or set(read[0]) != set(read[1]):
            return None
        return tuple(
            Scores(
                name,
                self._direction(metric.baseline, name),
                (first, read[1][name][0]),
                marks=marks and read[1][name][1],
            )
            for name, (first, marks) in read[0].items()
        )

    def stored(self, metric: Matched) -> Numbers | None:
        """What metrics.json of both runs says, where it is about these pairs and no others.

        Both plans then list the same samples in one order, so that the jackknives behind the
        numbers left out the same prompts. None where a number has to be computed again.
        """
        plan = metric.baseline.plan
        if isinstance(plan, CustomPlan) or plan.options != metric.other.plan.options:
            return None
        if not self._all_in_one_order:
            return None
        results = []
        for name in plan.result_names:
            records = [
                _one(opened, name, plan.extractor, each.reference)
                for opened, each in zip((self.baseline, self.other), metric, strict=True)
            ]
            if records[0] is None or records[1] is None:
                return None
            results.append((_result(records[0]), _result(records[1])))
        return Numbers((), tuple(results))

    @cached_property
    def _all_in_one_order(self) -> bool:
        """Whether the pairs are all samples of both runs, in the same places of both plans."""
        if any(self.pairs.only) or not np.array_equal(*self.pairs.places):
            return False
        mine, theirs = (prompt_numbers(each.run) for each in (self.baseline, self.other))
        current = self.baseline.tables_are_current and self.other.tables_are_current
        return current and np.array_equal(mine, theirs)

    def computed(self, metric: Matched, group: str | None = None, tag: str | None = None,
                 members: NDArray[np.bool_] | None = None) -> Numbers:  # fmt: skip
        """A metric computed on the pairs, or on those of a group; raises what cannot be."""
        if isinstance(metric.baseline.plan, CustomPlan):
            raise MetricError("a metric of your own is not computed again")
        both = []
        for side in (0, 1):
            among = None
            if members is not None:
                among = Group(str(tag), str(group), self._in_plan(side, members))
            both.append(self._compute(side, metric, among))
        results, rows = zip(*both, strict=True)
        scores = self._scores_of(metric.baseline, rows) if rows[0] and rows[1] else ()
        named = {each.name for each in scores}
        others = [pair for pair in zip(*results, strict=True) if pair[0].name not in named]
        return Numbers(scores, tuple(others))

    def _in_plan(self, side: int, members: NDArray[np.bool_]) -> NDArray[np.bool_]:
        run = (self.baseline, self.other)[side].run
        marks = np.zeros(run.num_samples, np.bool_)
        marks[self.pairs.places[side][members]] = True
        return marks

    def _compute(self, side: int, metric: Matched, group: Group | None) -> tuple[Any, Any]:
        """The results of one run, and what it says of single samples."""
        opened = (self.baseline, self.other)[side]
        feed = self._feed(side, metric)
        try:
            fed = feed.metric(metric.baseline, opened.shards, group)
            results = fed.metric.compute()
        except EvaluatorError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise MetricError(f"{type(error).__name__}: {error}") from error
        for result in results:
            result.warnings = (*result.warnings, *fed.remarks)
        return results, fed.metric.sample_rows()

    def _feed(self, side: int, metric: Matched) -> Feed:
        """One feed a run: it keeps published moments and the references' tags."""
        place = (side, metric.baseline.reference, metric.baseline.held_out)
        if place not in self._feeds:
            opened, asked = (self.baseline, self.other)[side], self.asked[side]
            if side == 1:
                sides = Side("A", self.asked[0]), Side("B", self.asked[1])
                asked = with_references_of(*sides, metric)
            placement = self.pairs.placement(side, opened.run.num_samples)
            self._feeds[place] = Feed(
                opened.run, asked, World(), None, placement, rows_at_once=ROWS_AT_ONCE,
                shared=self._shared,
            )  # fmt: skip
        return self._feeds[place]

    def _scores_of(self, asked: AskedMetric, rows: Sequence[Any]) -> tuple[Scores, ...]:
        """Scores from what both metrics say of single samples, which are placed by pair."""
        found = []
        for name, mean in rows[0].means.items():
            if name not in rows[1].means:
                continue
            values, marks = [], True
            for each in rows:
                column = each.columns[mean.column]
                values.append(_placed(column, each.positions, len(self.pairs), mean))
                marks = marks and _is_marks(column)
            pair = values[0], values[1]
            found.append(Scores(name, self._direction(asked, name), pair, marks))
        return tuple(found)

    def _table(
        self, side: int, opened: OpenedRun, asked: Asked, metric: AskedMetric
    ) -> Mapping[str, tuple[Floats, bool]] | None:
        """Number → its samples' scores by pair, and whether they are marks."""
        resolved, plan = asked.resolved(), metric.plan
        names = list(plan.result_names)
        if isinstance(plan, CustomPlan):
            names = [r.name for r in custom_numbers(opened, metric)]
        for name in names[:1]:
            path = opened.run.path / "metrics" / f"{resolved.table_name(metric, name)}.parquet"
            try:
                note, table = table_note(path), read_table(path, kind="metric")
            except (FileNotFoundError, CorruptShardError):
                return None
            return self._read(side, table, note.get("means"))
        return None

    def _read(
        self, side: int, table: pa.Table, means: Any
    ) -> Mapping[str, tuple[Floats, bool]] | None:
        if not isinstance(means, Mapping) or not means:
            return None
        where, found = self.pairs.where(side, table), {}
        for name, record in means.items():
            mean = MeanOf(**record)
            column = table.column(mean.column).to_numpy()
            kept = where >= 0
            placed = _placed(column[kept], where[kept], len(self.pairs), mean)
            found[name] = placed, _is_marks(column)
        return found

    def _direction(self, asked: AskedMetric, name: str) -> bool | None:
        plan = asked.plan
        if isinstance(plan, CustomPlan):
            record = self.baseline.number(name, plan.extractor)
            return record.higher_is_better if record is not None else None
        return dict(zip(plan.result_names, plan.higher_is_better, strict=True)).get(name)


def _one(
    opened: OpenedRun, name: str, extractor: str, reference: str | None
) -> MetricRecord | None:
    """The one number of metrics.json over all samples with this name, and its jackknife.

    None where there is none, or several, or one of a version that kept no jackknives.
    """
    found = [
        record
        for record in (opened.summary.metrics if opened.summary is not None else ())
        if (record.name, record.extractor, record.group) == (name, extractor, None)
        and (record.reference or {}).get("name") == reference
        and (record.interval is None or record.replicates is not None)
    ]
    return found[0] if len(found) == 1 else None


def _result(record: MetricRecord) -> Result:
    """A number as the metric gave it."""
    replicates = None
    if record.replicates is not None:
        lists = {name: tuple(record.replicates[name]) for name in ("left_out", "sizes")}
        replicates = Replicates(**{**record.replicates, **lists})
    interval = None if record.interval is None else Interval(**record.interval)
    return Result(
        record.name, record.value, record.n, record.higher_is_better, interval,
        tuple(record.warnings), record.details, replicates,
    )  # fmt: skip


def custom_numbers(opened: OpenedRun, metric: AskedMetric) -> list[Any]:
    """The numbers of metrics.json that no built-in metric of the run gave: those of its own."""
    asked, summary = opened.asked, opened.summary
    if asked is None or summary is None:
        return []
    resolved = asked.resolved()
    builtin = {
        name
        for each in resolved.metrics
        if not isinstance(each.plan, CustomPlan)
        for name in each.plan.result_names
    }
    custom = [each for each in resolved.metrics if isinstance(each.plan, CustomPlan)]
    alike = [each for each in custom if each.plan.extractor == metric.plan.extractor]
    if len(alike) > 1:
        names = set(metric.plan.result_names)
        return [r for r in summary.metrics if r.name in names and r.group is None]
    return [
        record
        for record in summary.metrics
        if record.name not in builtin
        and record.group is None
        and record.extractor == metric.plan.extractor
    ]


def _placed(column: Any, positions: Any, count: int, mean: MeanOf) -> Floats:
    """(count,) `offset + factor` times the column at its places; NaN where there is no number."""
    values = np.full(count, np.nan)
    numbers = mean.offset + mean.factor * np.asarray(column, dtype=np.float64)
    values[positions] = np.where(np.isfinite(numbers), numbers, np.nan)
    return values


def _is_marks(column: Any) -> bool:
    """Whether a column says pass or fail: true and false, or 0 and 1 alone."""
    values = np.asarray(column)
    if values.dtype == np.bool_:
        return True
    known = values[np.isfinite(values.astype(np.float64))]
    return bool(known.size and np.isin(known, (0.0, 1.0)).all())
