"""What a run directory says about itself: how much is there, who works on it, what failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evaluator.store.claims import Claim, Claims, Worker, is_set_aside
from evaluator.store.rundir import RunDirectory


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a run at one moment."""

    num_shards: int
    num_samples: int
    committed_shards: int
    committed_samples: int
    working: Mapping[str, Claim]
    """Shard → the claim of the worker that makes it now."""
    set_aside: Mapping[str, str]
    """Shard → why it was given up."""
    last_errors: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every planned sample is committed."""
        return self.committed_shards == self.num_shards

    @property
    def exit_status(self) -> int:
        """0 all there, 1 something failed for good, 3 incomplete."""
        if self.complete:
            return 0
        return 1 if self.set_aside else 3

    def lines(self) -> list[str]:
        """For people."""
        state = "complete" if self.complete else "incomplete"
        text = [
            f"{state}: {self.committed_samples}/{self.num_samples} samples in "
            f"{self.committed_shards}/{self.num_shards} shards"
        ]
        for shard, claim in sorted(self.working.items()):
            worker = claim.worker.name if claim.worker else "somebody"
            text.append(
                f"  shard {shard}: {claim.done} samples done by {worker}, "
                f"{claim.age:.0f} s ago (attempt {claim.attempt + 1})"
            )
        text += [f"  shard {shard} set aside: {why}" for shard, why in self.set_aside.items()]
        text += [f"  last error: {error}" for error in self.last_errors]
        return text


def read_status(run: RunDirectory) -> Status:
    """Read the state of a run; others may be writing to it."""
    committed = run.committed()
    attempts = Claims(run.claims_folder, Worker.current(), lease_seconds=600).attempts()
    starts, done = run.shard_starts, set(committed)
    working: dict[str, Claim] = {}
    set_aside: dict[str, str] = {}
    errors: list[tuple[float, str]] = []
    for task, claims in attempts.items():
        errors += [(c.age, f"{task}: {c.error}") for c in claims if c.error]
        if not task.isdecimal() or int(task) in done:
            continue
        if claims[-1].live:
            working[task] = claims[-1]
        elif is_set_aside(claims):
            reasons = [claim.error for claim in claims if claim.error]
            set_aside[task] = reasons[-1] if reasons else "its workers died"
    return Status(
        num_shards=run.num_shards,
        num_samples=run.num_samples,
        committed_shards=len(committed),
        committed_samples=sum(starts[i + 1] - starts[i] for i in committed),
        working=working,
        set_aside=set_aside,
        last_errors=tuple(message for _, message in sorted(errors)[:3]),
    )
