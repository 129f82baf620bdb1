"""The claim loop: take a shard nobody has, make it, commit it; wait for others at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from evaluator.distributed import StopRequest, World
from evaluator.errors import EvaluatorError, GenerationError
from evaluator.records import Prompt, Shard
from evaluator.runner.commit import Committer
from evaluator.runner.progress import Progress
from evaluator.runner.shard import ShardMaker
from evaluator.store.claims import Claim, Claims, is_set_aside
from evaluator.store.rundir import RunDirectory

POLL_SECONDS = 0.5
"""How often to look whether the shards that others hold are there."""

CONSECUTIVE_FAILURES = 3
"""Failures in a row after which a worker gives up: the fault is then not the shard's."""


@dataclass
class ShardWork:
    """One process's share of a run's shards."""

    run: RunDirectory
    claims: Claims
    maker: Callable[[], ShardMaker]
    """Gives the shard maker; called when there is a shard to make, so that a worker that finds
    nothing to do loads nothing."""
    prompts: Callable[[Shard], list[Prompt]]
    committer: Committer
    stop: StopRequest
    progress: Progress
    world: World

    def finish(self) -> list[str]:
        """Work until every shard is committed or set aside; returns the latter's errors.

        Raises Preempted when told to stop; the shard in hand is given back, uncounted.
        """
        order = list(range(self.run.num_shards))
        # Ranks begin at different places, so that they rarely contend for a shard.
        offset = self.world.rank * len(order) // self.world.size
        order = order[offset:] + order[:offset]
        failures = 0
        while pending := self._pending(order):
            worked = False
            for index in pending:
                self.stop.raise_if_set()
                claim = self._take(index)
                if claim is not None:
                    worked = True
                    failures = 0 if self._make(index, claim) else failures + 1
                    if failures >= CONSECUTIVE_FAILURES:
                        error = self.claims.of(claim.task)[-1].error
                        raise GenerationError(
                            f"{failures} shards failed in a row, so the fault is not theirs: "
                            f"{error}. Everything committed is kept."
                        )
            self.committer.wait()
            if not worked:
                errors = self._set_aside(pending)
                if len(errors) == len(pending):
                    return errors
                self._wait()
        return []

    def _pending(self, order: list[int]) -> list[int]:
        self.committer.wait()
        committed = set(self.run.committed())
        self.progress.update(committed)
        return [index for index in order if index not in committed]

    def _take(self, index: int) -> Claim | None:
        if self.run.is_committed(index):
            return None
        claim = self.claims.take(f"{index:05d}")
        if claim is not None and self.run.is_committed(index):
            # It was committed between the two looks.
            self.claims.finish(claim, done=claim.done)
            return None
        return claim

    def _make(self, index: int, claim: Claim) -> bool:
        """Make and commit one shard; returns False when it failed and was given back."""
        shard = self.run.shard(index)
        held = claim

        def after_batch(done: int) -> None:
            nonlocal held
            held = self.claims.renew(held, done=done)
            self.progress.batch_done(index, done)
            if done < len(shard.samples):
                self.stop.raise_if_set()

        try:
            result = self.maker().make(shard, self.prompts(shard), after_batch)
            self.committer.submit(result, held)
        except (EvaluatorError, KeyboardInterrupt):
            # Told to stop, or a fault that every shard would meet: this one is not to blame.
            with contextlib.suppress(EvaluatorError):
                self.claims.release(held)
            raise
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            self.claims.fail(held, message)
            self.progress.say(f"shard {shard.name} failed: {message}")
            return False
        return True

    def _set_aside(self, pending: list[int]) -> list[str]:
        errors = []
        for index in pending:
            attempts = self.claims.of(f"{index:05d}")
            if is_set_aside(attempts):
                reasons = [claim.error for claim in attempts if claim.error]
                why = reasons[-1] if reasons else "its workers died"
                errors.append(f"shard {index:05d}, after {len(attempts)} attempts: {why}")
        return errors

    def _wait(self) -> None:
        self.stop.raise_if_set()
        time.sleep(POLL_SECONDS)
