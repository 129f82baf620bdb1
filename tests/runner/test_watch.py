"""`status --watch`: who is how fast, who is slowest, and what went wrong, while others write."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evaluator.errors import RunDirectoryError
from evaluator.runner.status import read_status
from evaluator.runner.watch import Watch
from evaluator.store.claims import Claims, Worker
from evaluator.store.rundir import RunDirectory
from tests.runner.sleeper import create_run
from tests.runner.test_signals import start
from tests.store.test_rundir import commit
from tests.waiting import PATIENCE


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return create_run(tmp_path / "run", 40, 4)


def claims(run: RunDirectory, host: str) -> Claims:
    worker = replace(Worker.current(), host=f"{host}/boot/pids")
    return Claims(run.claims_folder, worker, lease_seconds=60)


def test_speeds_are_told_by_worker_and_the_slowest_is_named(run: RunDirectory) -> None:
    now = 0.0
    watch = Watch(run, clock=lambda: now)
    fast, slow = claims(run, "fast"), claims(run, "slow")
    ours, theirs = fast.take("00000"), slow.take("00001")
    assert ours is not None
    assert theirs is not None
    ours = fast.renew(ours, done=2)
    watch.look()
    now = 10.0
    commit(run, 0)
    fast.finish(ours, done=4)
    following = fast.take("00002")
    assert following is not None
    fast.renew(following, done=3)
    slow.renew(theirs, done=1)
    status, lines = watch.look()
    pid = Worker.current().pid
    assert watch.rates() == {f"fast:{pid}": 0.5, f"slow:{pid}": 0.1}
    text = "\n".join(lines)
    assert "incomplete: 4/40 samples in 1/10 shards" in text
    assert "2 in work, 0 put off, 0 set aside, 0.6 images/s, 0:53 left" in text
    assert f"fast:{pid}: 0.50 images/s, shard 00002, 3 done" in text
    assert f"slowest: slow:{pid} with 0.10 images/s" in text
    assert status.exit_status == 3


def test_speeds_are_those_of_lately(run: RunDirectory) -> None:
    now = 0.0
    watch = Watch(run, clock=lambda: now)
    ours = claims(run, "one")
    taken = ours.take("00000")
    assert taken is not None
    for now in (0.0, 100.0, 200.0, 300.0, 400.0):
        taken = ours.renew(taken, done=int(now / 100) ** 2)
        watch.look()
    (rate,) = watch.rates().values()
    assert rate == pytest.approx((16 - 1) / 300)


def test_failures_are_counted_and_told(run: RunDirectory) -> None:
    ours = claims(run, "one")
    for task, times in (("00003", 3), ("00004", 2)):
        for _ in range(times):
            taken = ours.take(task, alone=True)
            assert taken is not None
            ours.fail(taken, f"{task} went wrong")
    status, lines = Watch(run).look()
    text = "\n".join(lines)
    assert "0 in work, 1 put off, 1 set aside" in text
    assert "shard 00003 set aside: 00003 went wrong" in text
    assert "shard 00004: its last try is kept for the end" in text
    assert "--retry-failed" in text
    assert status.exit_status == 3, "there is work left"


def test_what_is_left_failed_for_good_is_another_status_than_work_left(run: RunDirectory) -> None:
    ours = claims(run, "one")
    for index in range(run.num_shards - 1):
        commit(run, index)
    assert read_status(run).exit_status == 3
    for _ in range(3):
        taken = ours.take("00009", alone=True)
        assert taken is not None
        ours.fail(taken, "boom")
    assert read_status(run).exit_status == 1
    commit(run, 9)
    assert read_status(run).exit_status == 0


def test_a_run_is_watched_until_it_is_complete_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "run"
    workers = [start(path, samples=80, seconds=0.02, rank=rank, workers=2) for rank in range(2)]
    watch = [sys.executable, "-m", "evaluator", "status", str(path), "--watch", "--interval", "0.2"]
    for _ in range(100):
        done = subprocess.run(watch, capture_output=True, text=True, timeout=300)
        if "expected a run directory" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    assert "complete: 80/80 samples in 10/10 shards" in done.stdout.splitlines()[-2:][0]
    assert [worker.wait(PATIENCE) for worker in workers] == [0, 0]


def test_a_folder_that_is_no_run_is_not_watched(tmp_path: Path, call) -> None:
    with pytest.raises(RunDirectoryError):
        RunDirectory.open(tmp_path)
    assert call("status", tmp_path, "--watch").status == 2
