"""How long single samples took: the batches that `timings.parquet` tells of.

The samples of a batch are made together and share one number. A sample's seconds are the seconds
of its batch's generation over the images in that batch. The last batch of a shard is filled up
with repeats of its last sample: these are images, too, so that its samples are not called slow.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evaluator.report.text import plain

STAGE = "generate"
NUM_SLOWEST = 10
"""Batches in the table of the slowest."""
NUM_NAMED = 4
"""Samples of a batch that the table names, and links; the others are counted."""

Values = NDArray[np.float64]


class Batch(NamedTuple):
    """One batch of a shard, as its worker generated it."""

    shard: int
    first: int
    """Row of its first sample in the shard."""
    samples: int
    images: int
    """Its samples, and what it was filled up with."""
    passes_of: int
    """Images that went through at once: fewer than `images` where the memory did not suffice."""
    seconds: float
    """Of its generation, with all tries."""
    worker: str
    first_of_worker: bool

    @property
    def each(self) -> float:
        """Seconds of generation of each of its samples: those of the batch over its images."""
        return self.seconds / self.images

    @property
    def remarks(self) -> list[str]:
        """What its seconds are to be read with."""
        said = []
        if self.first_of_worker:
            said.append("first batch of its worker")
        if self.passes_of < self.images:
            said.append(f"in passes of {self.passes_of}: the memory did not suffice")
        if self.samples < self.images:
            said.append(f"filled up from {self.samples}")
        return said


class SlowBatch(NamedTuple):
    """A batch in the table of the slowest; texts are fit to show."""

    batch: Batch
    names: Sequence[tuple[str, int]]
    """Key and image index of its first samples."""
    listed: bool
    """Whether they have a page in the gallery."""


def batches(timings: pa.Table, shard: int, num_samples: int) -> list[Batch]:
    """The batches of a shard's generation in the order of the plan.

    None of a table of before they were recorded, or of one whose batches do not add up to the
    shard.
    """
    table = timings.filter(pc.equal(timings.column("stage"), STAGE))
    counts = table.column("samples").to_pylist()
    if table.column("key").null_count or sum(counts) != num_samples or min(counts, default=0) < 1:
        return []
    found, first = [], 0
    for row in table.to_pylist():
        samples, size = row["samples"], max(row["batch_size"], row["samples"])
        passes_of = max(1, min(row["micro_batch"] or size, size))
        found.append(Batch(
            shard, first, samples, min(size, -(-samples // passes_of) * passes_of), passes_of,
            row["seconds"], plain(row["worker"], limit=60), bool(row["first_of_worker"]),
        ))  # fmt: skip
        first += samples
    return found


def seconds_of_samples(found: Sequence[Batch]) -> Values:
    """(N,) seconds of generation of each sample of a shard: its batch's over the images in it."""
    each = np.array([batch.each for batch in found], np.float64)
    return np.repeat(each, [batch.samples for batch in found])


@dataclass
class Slowest:
    """The batches with the most seconds an image, as they are met."""

    num_shards: int = 0
    """Whose batches are known."""
    num_batches: int = 0
    _heap: list[tuple[float, int, int, SlowBatch]] = field(default_factory=list)

    def add(self, found: Sequence[Batch], samples: pa.Table, *, listed: bool) -> None:
        """Take the batches of one shard with its `samples`."""
        self.num_shards += bool(found)
        self.num_batches += len(found)
        for batch in found:
            # Of equals the first of the plan is kept.
            rank = (batch.each, -batch.shard, -batch.first)
            if len(self._heap) < NUM_SLOWEST:
                heapq.heappush(self._heap, (*rank, _named(batch, samples, listed=listed)))
            elif rank > self._heap[0][:3]:
                heapq.heapreplace(self._heap, (*rank, _named(batch, samples, listed=listed)))

    def found(self) -> list[SlowBatch]:
        """The slowest first."""
        return [entry[3] for entry in sorted(self._heap, key=lambda e: e[:3], reverse=True)]


def _named(batch: Batch, samples: pa.Table, *, listed: bool) -> SlowBatch:
    rows = samples.slice(batch.first, min(batch.samples, NUM_NAMED))
    names = zip(*(rows.column(n).to_pylist() for n in ("key", "image_index")), strict=True)
    return SlowBatch(batch, [(plain(key, limit=200), index) for key, index in names], listed)
