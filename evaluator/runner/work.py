"""The claim loop: take a task nobody has, do it; wait for others at the end."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from evaluator.errors import EvaluatorError, GenerationError
from evaluator.stopping import StopRequest
from evaluator.store.claims import (
    Claim,
    Claims,
    counted,
    is_last_try,
    is_set_aside,
    last_error,
)
from evaluator.store.rundir import RunDirectory

POLL_SECONDS = 0.5
LONGEST_POLL_SECONDS = 5.0
"""How often to look whether the tasks that others hold are done, at first and after a while."""

FAILURES_IN_A_ROW = 3
"""Different tasks that fail in a row before a worker gives up: the fault is then not theirs."""

FAILURES_AFTER_SUCCESS = 10
"""The same for a worker that did tasks before: some of these may be at fault themselves."""

LEAP = 0.382
"""Where a worker goes on after a failure, as a share of what is left: bad prompts come together."""


class OthersAtWork(Exception):
    """Nothing is left to take: others hold all that is not done. There may be work elsewhere."""


class Tasks(Protocol):
    """Work of one kind that all workers of a run share."""

    def pending(self) -> list[str]:
        """The tasks that are not done, in the order in which this worker would take them."""

    def is_done(self, task: str) -> bool:
        """Whether somebody did it in the meantime."""

    def prepare(self) -> None:
        """Load what the work needs: called before a task is claimed, so that it is not blamed."""

    def work(self, task: str, claim: Claim) -> bool:
        """Do a claimed task; returns False when it failed, and the claim says why.

        What no task is to blame for is raised, and the claim released.
        """

    def describe(self, task: str) -> str:
        """What the task is called in a message: `shard 00007`."""


@dataclass
class ClaimLoop:
    """One process's share of some tasks."""

    claims: Claims
    tasks: Tasks
    stop: StopRequest
    first_allowance: float
    """Seconds that the first sign of progress of this process may take: it compiles."""
    waits: bool = True
    """Whether to wait for others at the end; else OthersAtWork is raised."""
    _streak: dict[str, Claim] = field(default_factory=dict)
    _patience: float = POLL_SECONDS
    _has_worked: bool = False
    _has_succeeded: bool = False

    def finish(self) -> list[str]:
        """Work until every task is done or set aside; returns the latter's errors.

        Raises Preempted when told to stop; the task in hand is given back, uncounted.
        """
        while pending := self.tasks.pending():
            if self._one_pass(pending):
                self._patience = POLL_SECONDS
                continue
            claims = self._claims_of(pending)
            if self._last_try(pending, claims):
                continue
            errors = [
                f"{self.tasks.describe(task)}, after {len(claims[task])} attempts: "
                f"{last_error(claims[task])}. --retry-failed tries it again"
                for task in pending
                if is_set_aside(claims.get(task, []))
            ]
            if len(errors) == len(pending):
                return errors
            self._wait()
        return []

    def _one_pass(self, pending: list[str]) -> bool:
        """Try every task that nobody holds; returns whether one was worked on."""
        # One look at all claims a pass: what is live in it need not be asked for again.
        claims = self._claims_of(pending)
        worked = False
        queue = deque(pending)
        while queue:
            task = queue.popleft()
            self.stop.raise_if_set()
            attempts = claims.get(task, [])
            live = bool(attempts) and attempts[-1].live
            if not (live or is_last_try(attempts) or is_set_aside(attempts)):
                failed_before = len(self._streak)
                worked |= self._work_on(task)
                if len(self._streak) > failed_before:
                    queue.rotate(-int(LEAP * len(queue)))
        return worked

    def _last_try(self, pending: list[str], claims: Mapping[str, list[Claim]]) -> bool:
        """Try a task that failed twice at one point, when there is nothing else to do for anybody.

        Every worker picks the same one, so that one at a time is tried.
        """
        left = [task for task in pending if not is_set_aside(claims.get(task, []))]
        if not left or not all(is_last_try(claims.get(task, [])) for task in left):
            return False
        if any(claims[task][-1].live for task in left):
            return False
        return self._work_on(min(left), alone=True)

    def _claims_of(self, pending: list[str]) -> dict[str, list[Claim]]:
        wanted = set(pending)
        return self.claims.attempts(skip=lambda task: task not in wanted)

    def _work_on(self, task: str, *, alone: bool = False) -> bool:
        """Take a task and do it; returns False when somebody else has it."""
        with self.stop.interruptible():
            self.tasks.prepare()
        claim = self._take(task, alone=alone)
        if claim is None:
            return False
        done = self.tasks.work(task, claim)
        self._has_worked = True
        if done:
            self._has_succeeded = True
            self._streak.clear()
        elif claim.attempt == 0 or not counted(self.claims.of(task)[: claim.attempt]):
            # Only a task that had not failed before says anything about this worker.
            self._streak[task] = claim
            self._give_up_after_many()
        return True

    def _take(self, task: str, *, alone: bool) -> Claim | None:
        if self.tasks.is_done(task):
            return None
        allowance = None if self._has_worked else self.first_allowance
        claim = self.claims.take(task, alone=alone, allowance=allowance)
        if claim is not None and self.tasks.is_done(task):
            # It was done between the two looks.
            self.claims.finish(claim, done=claim.done)
            return None
        return claim

    def _give_up_after_many(self) -> None:
        """Raise GenerationError when different tasks failed in a row; they are not to blame.

        They are given back as if untouched, unless the worker did others before.
        """
        enough = FAILURES_AFTER_SUCCESS if self._has_succeeded else FAILURES_IN_A_ROW
        if len(self._streak) < enough:
            return
        (*_, last) = self._streak.values()
        error = self.claims.of(last.task)[-1].error
        for claim in self._streak.values() if not self._has_succeeded else ():
            self.claims.release(claim)
        raise GenerationError(
            f"{len(self._streak)} shards failed in a row, so the fault is not theirs: {error}. "
            "Everything committed is kept; mend the cause and run the same command again."
        )

    def _wait(self) -> None:
        """Wait for others; longer each time that nothing happened, as many may be waiting."""
        self.stop.raise_if_set()
        if not self.waits:
            raise OthersAtWork
        time.sleep(self._patience)
        self._patience = min(self._patience * 1.3, LONGEST_POLL_SECONDS)


def give_back(claims: Claims, held: Claim, error: BaseException) -> str:
    """Let go of a claim whose work met `error`; returns what the task is said to have failed of.

    Raises `error` again where the task is not to blame: told to stop, or a fault that every task
    would meet.
    """
    if isinstance(error, EvaluatorError) or not isinstance(error, Exception):
        with contextlib.suppress(EvaluatorError):
            claims.release(held)
        raise error
    message = f"{type(error).__name__}: {error}"
    claims.fail(held, message)
    return message


def forgive_all(run: RunDirectory, claims: Claims) -> None:
    """Let everything be tried again that was set aside."""
    committed = {f"{index:05d}" for index in run.committed()}
    for task in claims.attempts(skip=lambda task: task in committed):
        claims.forgive(task)
