"""A worker without a model: its tasks are files to make, and some kill whoever tries them.

python -m tests.runner.task_worker FOLDER RANK TASKS DEADLY…
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from evaluator.runner.work import ClaimLoop
from evaluator.stopping import StopRequest
from evaluator.store.claims import Claim, Claims, Worker


class Files:
    """Tasks that are done when their file is there; notes who tried what, and what was there."""

    def __init__(self, folder: Path, claims: Claims, tasks: list[str], deadly: set[str]) -> None:
        self.folder, self.claims, self.tasks, self.deadly = folder, claims, tasks, deadly
        (folder / "done").mkdir(exist_ok=True)

    def pending(self) -> list[str]:
        return [task for task in self.tasks if not self.is_done(task)]

    def is_done(self, task: str) -> bool:
        return (self.folder / "done" / task).exists()

    def prepare(self) -> None:
        pass

    def describe(self, task: str) -> str:
        return f"task {task}"

    def work(self, task: str, claim: Claim) -> bool:
        with (self.folder / "log").open("a") as log:
            log.write(f"{task} {len(list((self.folder / 'done').iterdir()))}\n")
        held = self.claims.renew(claim, done=1)
        if task in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        (self.folder / "done" / task).touch()
        self.claims.finish(held, done=2)
        return True


class Failing(Files):
    """Tasks some of which fail with an error, as a bad prompt does."""

    def work(self, task: str, claim: Claim) -> bool:
        if task in self.deadly:
            self.claims.fail(claim, f"{task} is bad")
            return False
        return super().work(task, claim)


def main() -> None:
    folder, rank, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    claims = Claims(folder / "claims", Worker.current(rank), lease_seconds=60)
    tasks = Files(folder, claims, [f"{i:05d}" for i in range(count)], set(sys.argv[4:]))
    for error in ClaimLoop(claims, tasks, StopRequest(), first_allowance=60).finish():
        print(error)


if __name__ == "__main__":
    main()
