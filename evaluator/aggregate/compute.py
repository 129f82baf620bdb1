"""Tables → torchmetrics states → numbers, alone or with the other processes of a launch."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.aggregate.asked import Asked, AskedMetric
from evaluator.aggregate.features import FeatureReader, share
from evaluator.aggregate.summary import MAX_ERROR_LINES, Counts, MetricRecord, Summary
from evaluator.distributed import World
from evaluator.errors import CorruptShardError, EvaluatorError, MetricError
from evaluator.store.rundir import RunDirectory

if TYPE_CHECKING:
    from evaluator.metrics.results import Result


def aggregate(run: RunDirectory, asked: Asked, *, world: World, group: Any = None) -> Summary:
    """Compute all numbers of a run from its committed shards.

    With a process group every rank reads a contiguous part and the states are synchronized; the
    result is the same to 12 significant digits. When the synchronization fails, the main process
    reads everything alone. The main process writes metrics.json.
    """
    try:
        summary = _Aggregation(run, asked, world if group is not None else World(), group).compute()
    except (RuntimeError, ValueError) as error:
        if group is None or isinstance(error, EvaluatorError):
            raise
        logging.getLogger(__name__).warning("synchronization failed, computing alone: %s", error)
        summary = _Aggregation(run, asked, World(), None).compute()
    if world.is_main:
        content = json.dumps(summary.record(), indent=1, sort_keys=True, allow_nan=False)
        run.write("metrics.json", content.encode())
    return summary


@dataclass
class _Aggregation:
    run: RunDirectory
    asked: Asked
    world: World
    group: Any

    def compute(self) -> Summary:
        shards = self.run.committed()
        # The main process decides which shards count: another may see one more.
        shards = self._broadcast(shards)
        counts, lines = self._count(shards)
        records: list[MetricRecord] = []
        for metric in self.asked.resolved().metrics:
            records += self._metric(metric, shards, counts)
        return Summary(counts, tuple(records), lines)

    def _metric(self, asked: AskedMetric, shards: list[int], counts: Counts) -> list[MetricRecord]:
        plan = asked.plan
        failure: EvaluatorError | None = None
        metric: Any = None
        reference: RunDirectory | None = None
        try:
            reference = self._reference(asked)
            metric = self._accumulate(asked, shards, reference)
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
            message = str(failures[0])
            return [self._failed(asked, name, message, counts) for name in plan.result_names]
        try:
            results: Sequence[Result] = metric.compute()
        except (EvaluatorError, ArithmeticError, LookupError, TypeError) as error:
            message = f"{type(error).__name__}: {error}"
            return [self._failed(asked, name, message, counts) for name in plan.result_names]
        return [self._record(asked, result, reference, counts) for result in results]

    def _accumulate(
        self, asked: AskedMetric, shards: list[int], reference: RunDirectory | None
    ) -> Any:
        plan = asked.plan
        reader = self._reader(self.run, plan.extractor, self.asked.fingerprints)
        column = reader.column(plan.input)
        metric = plan.build(reader.dim(column))
        metric.process_group = self.group
        # torchmetrics would otherwise synchronize over the default group where there is one.
        metric.distributed_available_fn = lambda: self.group is not None
        self._update(metric, reader, column, shards, real=False)
        if reference is not None:
            real = self._reader(reference, plan.extractor, self.asked.reference_fingerprints)
            self._update(metric, real, real.column(plan.input), reference.committed(), real=True)
        return metric

    def _update(
        self, metric: Any, reader: FeatureReader, column: str, shards: list[int], *, real: bool
    ) -> None:
        import torch

        for rows in reader.read(column, share(shards, self.world.rank, self.world.size)):
            metric.update(
                torch.from_numpy(rows.values.copy()),
                torch.from_numpy(rows.positions),
                torch.from_numpy(rows.clusters),
                **({"real": True} if real else {}),
            )

    def _reader(self, run: RunDirectory, extractor: str, fingerprints: Any) -> FeatureReader:
        if extractor not in fingerprints:
            raise MetricError(
                f"expected features of '{extractor}', got those of "
                f"{', '.join(sorted(fingerprints)) or 'no extractor'}. Add '{extractor}' to "
                "features."
            )
        return FeatureReader(run, extractor, fingerprints[extractor])

    def _reference(self, asked: AskedMetric) -> RunDirectory | None:
        if asked.reference is None:
            return None
        reference = RunDirectory.open(Path(self.asked.references[asked.reference]))
        if len(reference.committed()) != reference.num_shards:
            raise MetricError(
                f"reference '{asked.reference}': expected all {reference.num_shards} shards, got "
                f"{len(reference.committed())}. Run the same `evaluator run` command again."
            )
        return reference

    def _record(
        self, asked: AskedMetric, result: Result, reference: RunDirectory | None, counts: Counts
    ) -> MetricRecord:
        warnings = list(result.warnings)
        fingerprint = self.asked.fingerprints.get(asked.plan.extractor)
        if reference is not None and fingerprint != self.asked.reference_fingerprints.get(
            asked.plan.extractor
        ):
            warnings.append(
                "the images of the run were kept by a lossy codec and judged as kept, those of "
                "the reference were not: the difference is part of this number"
            )
        details = {key: value for key, value in result.details.items() if math.isfinite(value)}
        value = result.value
        if value is not None and not math.isfinite(value):
            warnings.append(f"expected a finite number, got {value}")
            value = None
        return MetricRecord(
            name=result.name,
            value=value,
            n=result.n,
            n_expected=counts.planned,
            higher_is_better=result.higher_is_better,
            interval=asdict(result.interval) if result.interval is not None else None,
            extractor=asked.plan.extractor,
            fingerprint=fingerprint,
            reference=None
            if reference is None
            else {"name": asked.reference, "n": reference.num_samples},
            warnings=warnings,
            details=details,
        )

    def _failed(self, asked: AskedMetric, name: str, failure: str, counts: Counts) -> MetricRecord:
        return MetricRecord(
            name=name,
            value=None,
            n=0,
            n_expected=counts.planned,
            higher_is_better=None,
            interval=None,
            extractor=asked.plan.extractor,
            fingerprint=self.asked.fingerprints.get(asked.plan.extractor),
            reference=None,
            warnings=[failure],
        )

    def _count(self, shards: list[int]) -> tuple[Counts, tuple[str, ...]]:
        """Committed samples, errors and truncated prompts; lines for the first errors."""
        committed = errors = truncated = 0
        lines: list[str] = []
        columns = ["key", "image_index", "truncated", "error"]
        for shard in share(shards, self.world.rank, self.world.size):
            table = self.run.read(shard, "samples.parquet", kind="samples", columns=columns)
            committed += table.num_rows
            truncated += sum(bool(cut) for cut in table.column("truncated").to_pylist())
            for row in table.filter(table.column("error").is_valid()).to_pylist():
                errors += 1
                if len(lines) < MAX_ERROR_LINES:
                    lines.append(f"{row['key']}[{row['image_index']}]: {row['error']}")
        parts = self._gather((committed, errors, truncated, lines))
        totals = [sum(part[i] for part in parts) for i in range(3)]
        shown = [line for part in parts for line in part[3]][:MAX_ERROR_LINES]
        return Counts(self.run.num_samples, *totals), tuple(shown)

    def _gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in order."""
        if self.group is None:
            return [value]
        import torch.distributed as dist

        gathered: list[Any] = [None] * self.world.size
        dist.all_gather_object(gathered, value, group=self.group)
        return gathered

    def _broadcast(self, value: Any) -> Any:
        """The main process's value."""
        return self._gather(value)[0]
