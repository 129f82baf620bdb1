"""The claim loop: take a shard nobody has, make it, commit it; wait for others at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from evaluator.distributed import StopRequest, World
from evaluator.errors import EvaluatorError, GenerationError
from evaluator.records import Prompt, Shard
from evaluator.runner.commit import Committer
from evaluator.runner.progress import Progress
from evaluator.runner.shard import ShardMaker
from evaluator.store.claims import Claim, Claims, is_set_aside
from evaluator.store.rundir import RunDirectory

POLL_SECONDS = 0.5
LONGEST_POLL_SECONDS = 5.0
"""How often to look whether the shards that others hold are there, at first and after a while."""

FAILURES_IN_A_ROW = 3
"""Different shards that fail in a row before a worker gives up: the fault is then not theirs."""


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
    _committed: set[int] = field(default_factory=set)
    _streak: dict[int, Claim] = field(default_factory=dict)
    _patience: float = POLL_SECONDS

    def finish(self) -> list[str]:
        """Work until every shard is committed or set aside; returns the latter's errors.

        Raises Preempted when told to stop; the shard in hand is given back, uncounted.
        """
        order = list(range(self.run.num_shards))
        # Ranks begin at different places, so that they rarely contend for a shard.
        offset = self.world.rank * len(order) // self.world.size
        order = order[offset:] + order[:offset]
        while pending := self._pending(order):
            # One look at all claims a pass: what is live in it need not be asked for again.
            claims = self.claims.attempts(skip=self._is_settled)
            worked = False
            for index in pending:
                self.stop.raise_if_set()
                task = f"{index:05d}"
                if not (task in claims and (claims[task][-1].live or is_set_aside(claims[task]))):
                    worked |= self._work_on(index)
            self.committer.wait()
            if worked:
                self._patience = POLL_SECONDS
                continue
            errors = self._set_aside(pending, claims)
            if len(errors) == len(pending):
                return errors
            self._wait()
        return []

    def _is_settled(self, task: str) -> bool:
        return not task.isdecimal() or int(task) in self._committed

    def _work_on(self, index: int) -> bool:
        """Take, make and commit one shard; returns False when somebody else has it."""
        # Loaded before the claim: a death while loading is not the shard's fault.
        maker = self.maker()
        claim = self._take(index)
        if claim is None:
            return False
        if self._make(maker, index, claim):
            self._streak.clear()
        else:
            self._streak[index] = claim
            self._give_up_after_many(self._streak)
        if self.committer.failures_in_a_row >= FAILURES_IN_A_ROW:
            raise GenerationError(
                f"{self.committer.failures_in_a_row} shards in a row could not be written, so the "
                f"fault is not theirs: {self.committer.last_error}. Everything committed is kept."
            )
        return True

    def _give_up_after_many(self, streak: dict[int, Claim]) -> None:
        """Raise GenerationError when different shards failed in a row; they are not to blame."""
        if len(streak) < FAILURES_IN_A_ROW:
            return
        (*_, last) = streak.values()
        error = self.claims.of(last.task)[-1].error
        for claim in streak.values():
            self.claims.release(claim)
        raise GenerationError(
            f"{len(streak)} shards failed in a row, so the fault is not theirs: {error}. "
            "Everything committed is kept; mend the cause and run the same command again."
        )

    def _pending(self, order: list[int]) -> list[int]:
        self.committer.wait()
        self._committed = set(self.run.committed())
        self.progress.update(self._committed)
        return [index for index in order if index not in self._committed]

    def _take(self, index: int) -> Claim | None:
        if self.run.is_committed(index):
            return None
        claim = self.claims.take(f"{index:05d}")
        if claim is not None and self.run.is_committed(index):
            # It was committed between the two looks.
            self.claims.finish(claim, done=claim.done)
            return None
        return claim

    def _make(self, maker: ShardMaker, index: int, claim: Claim) -> bool:
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
            result = maker.make(shard, self.prompts(shard), after_batch)
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

    def _set_aside(self, pending: list[int], claims: Mapping[str, list[Claim]]) -> list[str]:
        errors = []
        for index in pending:
            attempts = claims.get(f"{index:05d}", [])
            if is_set_aside(attempts):
                reasons = [claim.error for claim in attempts if claim.error]
                why = reasons[-1] if reasons else "its workers died"
                errors.append(
                    f"shard {index:05d}, after {len(attempts)} attempts: {why}. To try it again, "
                    f"delete {self.claims.folder}/{index:05d}.*"
                )
        return errors

    def _wait(self) -> None:
        """Wait for others; longer each time that nothing happened, as many may be waiting."""
        self.stop.raise_if_set()
        time.sleep(self._patience)
        self._patience = min(self._patience * 1.3, LONGEST_POLL_SECONDS)
