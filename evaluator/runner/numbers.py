"""The numbers of a run: of workers that are independent of each other, one computes them."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from evaluator.aggregate.asked import Asked, request_digest
from evaluator.aggregate.compute import aggregate
from evaluator.aggregate.stored import stored_summary
from evaluator.aggregate.summary import Summary
from evaluator.errors import EvaluatorError
from evaluator.runner.surroundings import Surroundings
from evaluator.runner.work import OthersAtWork
from evaluator.store.claims import Claim, Claims, is_set_aside
from evaluator.store.rundir import RunDirectory

POLL_SECONDS = 0.5
"""How often to look whether another worker has computed the numbers."""


@dataclass
class Numbers:
    """How one process comes to the numbers of a run; made before the process works on it."""

    run: RunDirectory
    claims: Claims
    around: Surroundings
    group: Any
    allowance: float
    """Seconds that another worker may take to compute; they show no progress."""
    _before: tuple[int, int] | None = field(init=False)

    def __post_init__(self) -> None:
        self._before = self._stamp()

    def of(self, asked: Asked) -> Summary:
        """Compute what is asked, with the launch or alone, or take what another worker computed.

        Raises CorruptShardError for a damaged shard, Preempted when told to stop.
        """
        if self.around.world.size > 1:
            return self._compute(asked)
        # Hidden among the claims: it is no work on samples, and none of it is ever set aside.
        task = f".numbers-{request_digest(asked.request)[:16]}"
        waited = False
        while True:
            attempts = self.claims.of(task)
            if attempts and attempts[-1].live:
                waited = True
                self.around.stop.raise_if_set()
                if not self.around.waits:
                    raise OthersAtWork
                time.sleep(POLL_SECONDS)
                continue
            witnessed = waited and attempts[-1].state == "done"
            if (found := self._found(asked, witnessed=witnessed)) is not None:
                return found
            claim = self.claims.take(task, alone=True, allowance=self.allowance)
            if claim is not None:
                return self._compute_claimed(asked, claim)
            if is_set_aside(attempts):  # those who tried died of something; this one may not
                return self._compute(asked)

    def _compute(self, asked: Asked) -> Summary:
        stop = self.around.stop
        stop.raise_if_set()
        with stop.interruptible():
            return aggregate(self.run, asked, world=self.around.world, group=self.group)

    def _compute_claimed(self, asked: Asked, claim: Claim) -> Summary:
        try:
            summary = self._compute(asked)
        except BaseException:
            with suppress(EvaluatorError):
                self.claims.release(claim)
            raise
        self.claims.finish(claim, done=0)
        return summary

    def _found(self, asked: Asked, *, witnessed: bool) -> Summary | None:
        """What another worker wrote since this one began, if it answers the same; else None.

        Whoever did not see it being computed takes only what is whole and of the shards as they
        are: one of them may have been set apart and made again since.
        """
        stamp = self._stamp()
        summary = stored_summary(self.run.path)
        if stamp is None or stamp == self._before or summary is None:
            return None
        if summary.request != request_digest(asked.request):
            return None
        starts = self.run.shard_starts
        committed = sum(starts[i + 1] - starts[i] for i in self.run.committed())
        if summary.counts.committed != committed:
            return None
        whole = summary.complete and all(metric.value is not None for metric in summary.metrics)
        newest = (self.run.path / "shards").stat().st_mtime_ns
        return summary if witnessed or (whole and stamp[1] >= newest) else None

    def _stamp(self) -> tuple[int, int] | None:
        """What changes when metrics.json is replaced: its inode and its time."""
        try:
            stat = (self.run.path / "metrics.json").stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns
