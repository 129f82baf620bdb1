"""How long each stage of a shard took, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Lap:
    """One stage's work on one batch."""

    seconds: float = 0.0
    micro_batch: int | None = None
    """Samples that went through at once; None for a stage that has no batches."""


@dataclass
class Stopwatch:
    """Seconds of each stage with each batch.

    No device is waited for here. What a stage gives (images, features, what probes saw) lies on
    the CPU, and the copy that brought it there, at the end of its batch, waited for the device.
    """

    laps: dict[tuple[str, range], Lap] = field(default_factory=dict)
    """Stage and rows of the shard → its work on them."""

    @contextmanager
    def stage(self, name: str, rows: range) -> Iterator[Lap]:
        """Add the time of the block to a stage's work on these rows, also where the block fails.

        What is tried again in smaller parts then took as long as all tries.
        """
        lap = self.laps.setdefault((name, rows), Lap())
        start = time.perf_counter()
        try:
            yield lap
        finally:
            lap.seconds += time.perf_counter() - start
