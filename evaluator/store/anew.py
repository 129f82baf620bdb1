"""A run in which nothing was made yet may be planned anew: its name is not lost to a mistake."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from evaluator.durable import explained_in_run
from evaluator.store.claims import Claims, Worker
from evaluator.store.rundir import RunDirectory


def put_plan_away(run: RunDirectory, worker: Worker) -> bool:
    """Take the plan out of a run that has no results and on which nobody works; whether it was.

    Who still holds the old plan, and has claimed nothing yet, cannot commit by it any more.
    """
    if not _is_untouched(run, worker) or not run.is_current():
        return False
    aside, init = run.stage("replanned"), run.path / "init"
    with explained_in_run("plan anew", run.path):
        os.rename(init, aside / "init")
        found = (aside / "init").stat()
        # Somebody may have planned it anew, or begun to work, since it was looked at.
        anew = (found.st_ino, found.st_mtime_ns) == run.planned and _is_untouched(run, worker)
        if not anew and not init.exists():
            os.rename(aside / "init", init)
    if anew:
        _clear(run.path)
    run.discard(aside)
    return anew


def _is_untouched(run: RunDirectory, worker: Worker) -> bool:
    """Whether nothing is committed, nothing was set apart as damaged, and nobody is at work."""
    claims = Claims(run.claims_folder, worker, lease_seconds=600).attempts()
    if any(attempts[-1].live for attempts in claims.values()):
        return False
    # After the claims: who commits has one.
    return not run.committed() and not any((run.path / "quarantine").iterdir())


def _clear(path: Path) -> None:
    """Remove what belongs to a plan without results: failed attempts, and what is said of it."""
    with explained_in_run("plan anew", path):
        for claim in (path / "claims").iterdir():
            claim.unlink(missing_ok=True)
        for name in ("schedule.parquet", "metrics.json", "asked.json"):
            (path / name).unlink(missing_ok=True)
    shutil.rmtree(path / "flaws", ignore_errors=True)
