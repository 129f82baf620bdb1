"""A plan without results may be replaced; one with results, or with a worker, never."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluator.errors import RunDirectoryError
from evaluator.store.anew import put_plan_away
from evaluator.store.claims import Claims, Worker
from evaluator.store.rundir import RunDirectory
from tests.store.test_rundir import commit, plan

ME = Worker.current()


def planned(path: Path, config: bytes) -> RunDirectory:
    RunDirectory.create(path, {"config.yaml": config}, plan(10, 4))
    return RunDirectory.open(path)


def claims(run: RunDirectory) -> Claims:
    return Claims(run.claims_folder, ME, lease_seconds=600)


def test_who_holds_the_old_plan_cannot_commit_by_it(tmp_path: Path) -> None:
    old = planned(tmp_path / "run", b"a: 1")
    failed = claims(old).take("00000")
    assert failed is not None
    claims(old).fail(failed, "too high")
    assert put_plan_away(RunDirectory.open(old.path), ME)
    new = planned(tmp_path / "run", b"a: 2")
    assert new.init_file("config.yaml") == b"a: 2"
    assert claims(new).attempts() == {}, "the failures were those of the old plan"
    assert not old.is_current()
    with pytest.raises(RunDirectoryError, match="planned anew meanwhile"):
        commit(old, 0)
    assert commit(new, 0)
    assert not put_plan_away(old, ME), "it is not the plan that was looked at"


def work(run: RunDirectory) -> None:
    assert claims(run).take("00001") is not None


def set_apart(run: RunDirectory) -> None:
    (run.path / "quarantine" / "00001.0").mkdir()


@pytest.mark.parametrize("happen", [work, set_apart, lambda run: commit(run, 1)])
@pytest.mark.parametrize("late", [False, True])
def test_a_run_with_results_or_a_worker_keeps_its_plan(
    happen: Callable[[RunDirectory], object],
    late: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = planned(tmp_path / "run", b"a: 1")
    if late:  # between the look and the removal
        stage = RunDirectory.stage

        def staged(self: RunDirectory, name: str) -> Path:
            if name == "replanned":
                happen(run)
            return stage(self, name)

        monkeypatch.setattr(RunDirectory, "stage", staged)
    else:
        happen(run)
    assert not put_plan_away(run, ME)
    assert run.planned_now() == run.planned
    assert run.init_file("config.yaml") == b"a: 1"
    assert not list((run.path / "staging").glob("replanned*"))
