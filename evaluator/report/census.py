"""What is there and what is not: counts over every committed shard, and the samples that failed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from evaluator.report.batches import Slowest
from evaluator.report.text import plain

_PARTS = ["stage", "worker", "device", "threads", "batch_size"]
_SUMS = [("seconds", "sum"), ("samples", "sum")]

MAX_LISTED = 50
"""Samples with an error that the page lists; the others are counted."""


class FailedSample(NamedTuple):
    """A sample without an image, fit to show."""

    key: str
    image_index: int
    prompt: str
    error: str


@dataclass
class Census:
    """Counts of a run's samples."""

    planned: int
    num_shards: int
    num_committed_shards: int = 0
    committed: int = 0
    errors: int = 0
    truncated: int = 0
    failed: list[FailedSample] = field(default_factory=list)

    def add(self, samples: pa.Table) -> None:
        """Count one shard's samples."""
        self.num_committed_shards += 1
        self.committed += samples.num_rows
        has_error = pc.is_valid(samples.column("error"))
        self.errors += pc.sum(has_error).as_py() or 0
        self.truncated += pc.sum(samples.column("truncated")).as_py() or 0
        room = MAX_LISTED - len(self.failed)
        if room > 0:
            for row in samples.filter(has_error).slice(0, room).to_pylist():
                prompt = plain(row["prompt"] or "", limit=300)
                error = plain(row["error"], limit=500)
                name = plain(row["key"], limit=200)
                self.failed.append(FailedSample(name, row["image_index"], prompt, error))

    @property
    def complete(self) -> bool:
        """Whether every planned sample is committed."""
        return self.committed == self.planned


class Work(NamedTuple):
    """Seconds spent and samples done."""

    seconds: float
    samples: int

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds if self.seconds > 0 else float("nan")

    @property
    def each(self) -> float:
        """Seconds a sample."""
        return self.seconds / self.samples if self.samples else float("nan")


class Worker(NamedTuple):
    """A process that committed shards, with its settings."""

    name: str
    device: str
    threads: int
    batch_size: int


@dataclass
class Timings:
    """Seconds by stage and by worker, over every committed shard."""

    by_stage: dict[str, Work] = field(default_factory=dict)
    by_worker: dict[Worker, Work] = field(default_factory=dict)
    by_shard: dict[int, tuple[Work, str]] = field(default_factory=dict)
    """Shard → all its stages, and the workers that did them."""
    batches: Slowest = field(default_factory=Slowest)
    """Of the shards whose batches are known."""

    def add(self, table: pa.Table, index: int) -> Work:
        """Add one shard, and return its work.

        Its samples count once for a worker, however many stages it has.
        """
        seconds: dict[Worker, float] = defaultdict(float)
        done: dict[Worker, int] = {}
        for row in table.group_by(_PARTS, use_threads=False).aggregate(_SUMS).to_pylist():
            stage, work = plain(row["stage"]), Work(row["seconds_sum"], row["samples_sum"])
            before = self.by_stage.get(stage, Work(0.0, 0))
            after = Work(before.seconds + work.seconds, before.samples + work.samples)
            self.by_stage[stage] = after
            name, device = plain(row["worker"]), plain(row["device"])
            worker = Worker(name, device, row["threads"], row["batch_size"])
            seconds[worker] += work.seconds
            done[worker] = max(done.get(worker, 0), work.samples)
        for worker, num in done.items():
            before = self.by_worker.get(worker, Work(0.0, 0))
            total = Work(before.seconds + seconds[worker], before.samples + num)
            self.by_worker[worker] = total
        whole = Work(sum(seconds.values()), max(done.values(), default=0))
        self.by_shard[index] = whole, ", ".join(sorted({worker.name for worker in done}))
        return whole

    def slowest(self, most: int) -> list[tuple[int, Work, str]]:
        """Shards by seconds a sample, the slowest first."""
        rows = [(index, *work) for index, work in self.by_shard.items() if work[0].samples]
        return sorted(rows, key=lambda row: (-row[1].each, row[0]))[:most]

    @property
    def total(self) -> float:
        """Seconds in all stages together."""
        return sum(work.seconds for work in self.by_stage.values())
