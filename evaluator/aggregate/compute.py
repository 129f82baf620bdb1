"""Tables → torchmetrics states → numbers, alone or with the other processes of a launch."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evaluator.aggregate.asked import Asked, AskedMetric, ReferencePlace, request_digest
from evaluator.aggregate.features import share
from evaluator.aggregate.feed import Fed, Feed
from evaluator.aggregate.samplewise import write_sample_rows
from evaluator.aggregate.summary import Counts, MetricRecord, Summary
from evaluator.aggregate.survey import Survey, flaw_warnings, size_warning, survey
from evaluator.aggregate.tags import Group, groups_of, tag_values
from evaluator.distributed import World
from evaluator.errors import CorruptShardError, EvaluatorError, MetricError
from evaluator.store.rundir import RunDirectory

if TYPE_CHECKING:
    from evaluator.metrics.results import Result

T = TypeVar("T")


def aggregate(run: RunDirectory, asked: Asked, *, world: World, group: Any = None) -> Summary:
    """Compute all numbers of a run from its committed shards.

    With a process group every rank reads a contiguous part and the states are synchronized; the
    result is the same to 12 significant digits. When the synchronization fails, the main process
    reads everything alone. The main process writes metrics.json.
    """
    aggregation = _Aggregation(run, asked, world if group is not None else World(), group)
    try:
        summary = aggregation.compute()
    except (RuntimeError, ValueError) as error:
        if group is None or isinstance(error, EvaluatorError):
            raise
        logging.getLogger(__name__).warning("synchronization failed, computing alone: %s", error)
        aggregation = _Aggregation(run, asked, World(), None)
        summary = aggregation.compute()
    if world.is_main:
        run.drop_metric_tables(but=aggregation.tables)
        content = json.dumps(summary.record(), indent=1, sort_keys=True, allow_nan=False)
        run.write("metrics.json", content.encode())
    return summary


@dataclass
class _Aggregation:
    run: RunDirectory
    asked: Asked
    world: World
    group: Any
    surveys: dict[str, Survey] = field(default_factory=dict)
    tables: set[str] = field(default_factory=set)
    """Names of the tables of single samples that were written."""

    def __post_init__(self) -> None:
        self.feed = Feed(self.run, self.asked, self.world, self.group)

    def compute(self) -> Summary:
        # The main process decides which shards count: another may see one more.
        shards = self._together(self.run.committed)[0]
        seen = self._survey(self.run, shards)
        counts = Counts(
            self.run.num_samples, seen.committed, seen.errors, seen.truncated, seen.black,
            seen.non_finite,
        )  # fmt: skip
        records: list[MetricRecord] = []
        for metric in self.asked.resolved().metrics:
            records += self._metric(metric, shards)
            for group in self._groups(metric, shards, records):
                records += self._metric(metric, shards, group)
        request = request_digest(self.asked.request)
        return Summary(counts, tuple(records), seen.lines, request)

    def _groups(
        self, asked: AskedMetric, shards: list[int], records: list[MetricRecord]
    ) -> Iterator[Group]:
        """The groups of a metric; why there are none becomes a warning of its numbers."""
        if asked.by is None:
            return
        tag, mine = asked.by, self._share(shards)
        parts = self._together(lambda: tag_values(self.run, mine, tag))
        values = [value for part in parts for value in part]
        try:
            yield from groups_of(values, asked.by, self.run.num_samples)
        except MetricError as error:
            for record in records[-len(asked.plan.result_names) :]:
                record.warnings.append(str(error))

    def _metric(
        self, asked: AskedMetric, shards: list[int], group: Group | None = None
    ) -> list[MetricRecord]:
        plan = asked.plan
        failure: EvaluatorError | None = None
        fed: Any = None
        try:
            fed = self.feed.metric(asked, shards, group)
        except EvaluatorError as error:
            failure = error
        except Exception as error:
            # A metric of the user's own may raise anything; the others go on.
            failure = MetricError(f"{plan.name}: {type(error).__name__}: {error}")
        # Every rank must reach the synchronization of a metric, or none may.
        failures = [error for error in self._gather(failure) if error is not None]
        if failures:
            damaged = [error for error in failures if isinstance(error, CorruptShardError)]
            if damaged:
                raise damaged[0]
            return self._failed(asked, str(failures[0]), group)
        results, why = self._compute(fed.metric)
        if reasons := [reason for reason in self._gather(why) if reason is not None]:
            return self._failed(asked, reasons[0], group)
        if group is None:
            self._together(lambda: self._write_rows(asked, fed.metric, results))
        cautions = self._cautions(asked, fed)
        return [self._record(asked, result, cautions, group) for result in results]

    def _compute(self, metric: Any) -> tuple[Sequence[Result], str | None]:
        """The results of a metric, or why there are none."""
        from evaluator.metrics.results import Result

        try:
            results = metric.compute()
            if not (
                isinstance(results, Sequence) and all(isinstance(each, Result) for each in results)
            ):
                raise TypeError(
                    "expected compute() to return a tuple of evaluator.metrics.Result, got "
                    f"{type(results).__name__}; wrap each number in one"
                )
        except Exception as error:
            expected = (EvaluatorError, ArithmeticError, LookupError, TypeError)
            if self.group is not None and not isinstance(error, expected):
                raise  # it may be the synchronization that failed
            return (), f"{type(error).__name__}: {error}"
        return results, None

    def _write_rows(self, asked: AskedMetric, metric: Any, results: Sequence[Result]) -> None:
        """What the metric says of single samples, written by the main process."""
        rows = metric.sample_rows() if hasattr(metric, "sample_rows") else None
        if rows is not None and self.world.is_main:
            place = self.asked.references.get(asked.reference or "")
            name = self.asked.resolved().table_name(asked, results[0].name)
            write_sample_rows(self.run, name, rows, place)
            self.tables.add(name)

    def _cautions(self, asked: AskedMetric, fed: Fed) -> list[str]:
        """What a reader should know about the images that the run's were compared with."""
        # published moments say nothing about images
        names = [None if fed.by_moments else asked.reference, asked.held_out]
        cautions = [*fed.remarks, *flaw_warnings(self.surveys[str(self.run.path)])]
        for name in names:
            place = self.asked.references.get(name or "")
            if place is not None and place.run is not None:
                held_out = f"held-out set '{name}': " if name == asked.held_out else ""
                found = self._cautions_about(place, Path(place.run), asked.plan.extractor)
                cautions += [held_out + caution for caution in found]
        return cautions

    def _cautions_about(self, place: ReferencePlace, path: Path, extractor: str) -> list[str]:
        """What its images' codec, errors and sizes mean for the number."""
        cautions = []
        if self.asked.fingerprints.get(extractor) != place.fingerprints.get(extractor):
            cautions.append(
                "the images of the run and of the reference were kept by different codecs, a lossy "
                "one among them, and judged as kept: the difference is part of this number"
            )
        reference = RunDirectory(path)  # its features were read: it is there
        shards = self._together(reference.committed)[0]
        seen = self._survey(reference, shards)
        if seen.errors:
            cautions.append(
                f"{seen.errors} of {seen.committed} reference images could not be read and are "
                f"left out, the first: {seen.lines[0]}"
            )
        differs = size_warning(self.surveys[str(self.run.path)], seen)
        return [*cautions, differs] if differs else cautions

    def _record(
        self, asked: AskedMetric, result: Result, cautions: list[str], group: Group | None
    ) -> MetricRecord:
        warnings = [*result.warnings, *cautions]
        details = {key: value for key, value in result.details.items() if math.isfinite(value)}
        value = result.value
        if value is not None and not math.isfinite(value):
            warnings.append(f"expected a finite number, got {value}")
            value = None
        return MetricRecord(
            name=result.name,
            value=value,
            n=result.n,
            n_expected=self.run.num_samples if group is None else group.num_planned,
            higher_is_better=result.higher_is_better,
            interval=None if result.interval is None else result.interval.record(),
            extractor=asked.plan.extractor,
            fingerprint=self.asked.fingerprints.get(asked.plan.extractor),
            reference=self._reference_record(asked, details),
            warnings=warnings,
            details=details,
            group=None if group is None else {group.tag: group.value},
            replicates=_replicates(result) if group is None else None,
        )

    def _reference_record(
        self, asked: AskedMetric, details: dict[str, float]
    ) -> dict[str, Any] | None:
        """The reference's name, and how many of its samples are in the number."""
        if asked.reference is None:
            return None
        record: dict[str, Any] = {"name": asked.reference}
        count = details.get("n_reference")
        record["n"] = None if count is None else int(count)
        if asked.held_out is not None:
            record["held_out"] = asked.held_out
        return record

    def _failed(self, asked: AskedMetric, why: str, group: Group | None) -> list[MetricRecord]:
        return [
            MetricRecord(
                name=name,
                value=None,
                n=0,
                n_expected=self.run.num_samples if group is None else group.num_planned,
                higher_is_better=None,
                interval=None,
                extractor=asked.plan.extractor,
                fingerprint=self.asked.fingerprints.get(asked.plan.extractor),
                reference=self._reference_record(asked, {}),
                warnings=[why],
                group=None if group is None else {group.tag: group.value},
            )
            for name in asked.plan.result_names
        ]

    def _survey(self, run: RunDirectory, shards: list[int]) -> Survey:
        """The sample tables of a run, read once by all ranks together."""
        name = str(run.path)
        if name not in self.surveys:
            total = Survey()
            for part in self._together(lambda: survey(run, self._share(shards))):
                total = total.merge(part)
            self.surveys[name] = total
        return self.surveys[name]

    def _share(self, shards: list[int]) -> list[int]:
        return share(shards, self.world.rank, self.world.size)

    def _together(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives on each rank, in order; an error of one rank is raised by all.

        A rank that left alone would keep the others waiting in the next collective.
        """
        if self.group is None:
            return [work()]
        value: T | None = None
        failure: EvaluatorError | None = None
        try:
            value = work()
        except EvaluatorError as error:
            failure = error
        except Exception as error:
            failure = MetricError(f"{type(error).__name__}: {error}")
        parts = self._gather((value, failure))
        for _, failed in parts:
            if failed is not None:
                raise failed
        return [found for found, _ in parts]

    def _gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in order."""
        if self.group is None:
            return [value]
        import torch.distributed as dist

        gathered: list[Any] = [None] * self.world.size
        dist.all_gather_object(gathered, value, group=self.group)
        return gathered


def _replicates(result: Result) -> dict[str, Any] | None:
    """What metrics.json keeps of a number's jackknife; None without one."""
    seen = result.jackknife
    if seen is None or not all(map(math.isfinite, seen.left_out)):
        return None
    lists = {"left_out": list(seen.left_out), "sizes": list(seen.sizes)}
    return {**seen._asdict(), **lists}
