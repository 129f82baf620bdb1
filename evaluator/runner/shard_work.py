"""A run's shards as tasks: each is made, then committed while the next is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from evaluator.distributed import World
from evaluator.errors import GenerationError
from evaluator.records import Prompt, Shard
from evaluator.runner.commit import Committer
from evaluator.runner.progress import Progress
from evaluator.runner.shard import ShardMaker
from evaluator.runner.work import FAILURES_IN_A_ROW, give_back
from evaluator.stopping import StopRequest
from evaluator.store.claims import Claim, Claims
from evaluator.store.rundir import RunDirectory


@dataclass
class ShardWork:
    """The shards of a run, as one process makes them."""

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
    _maker: ShardMaker | None = field(default=None, init=False)

    def pending(self) -> list[str]:
        """The shards that are not committed; ranks begin at different places."""
        self.committer.wait()
        committed = set(self.run.committed())
        self.progress.update(committed)
        # They then rarely contend for a shard.
        offset = self.world.rank * self.run.num_shards // self.world.size
        order = [*range(offset, self.run.num_shards), *range(offset)]
        return [f"{index:05d}" for index in order if index not in committed]

    def is_done(self, task: str) -> bool:
        """Whether the shard is committed."""
        return self.run.is_committed(int(task))

    def describe(self, task: str) -> str:
        """`shard 00007`."""
        return f"shard {task}"

    def prepare(self) -> None:
        """Load the model and the extractors, once."""
        self._maker = self.maker()

    def work(self, task: str, claim: Claim) -> bool:
        """Make one shard and hand it to the committer; returns False when it failed."""
        assert self._maker is not None, "prepare() comes first"
        shard = self.run.shard(int(task))
        held, began = claim, time.monotonic()

        def after_batch(done: int) -> None:
            nonlocal held
            held = self.claims.renew(held, done=done)
            self.progress.batch_done(shard.index, done)
            left = (time.monotonic() - began) / done * (len(shard.samples) - done)
            if left:
                self.stop.raise_unless_time_for(left)

        try:
            with self.stop.interruptible():
                result = self._maker.make(shard, self.prompts(shard), after_batch)
            self.committer.submit(result, held)
        except BaseException as error:
            message = give_back(self.claims, held, error)
            self.progress.say(f"shard {shard.name} failed: {message}")
            return False
        self._require_writable()
        return True

    def _require_writable(self) -> None:
        if self.committer.failures_in_a_row >= FAILURES_IN_A_ROW:
            raise GenerationError(
                f"{self.committer.failures_in_a_row} shards in a row could not be written, so the "
                f"fault is not theirs: {self.committer.last_error}. Everything committed is kept."
            )
