"""The claim loop with workers that die: everything else is done, and the killers are named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from evaluator.runner.work import ClaimLoop
from evaluator.stopping import StopRequest
from evaluator.store.claims import Claims, Worker, is_set_aside
from tests.runner.task_worker import Files


def start(folder: Path, rank: int, count: int, deadly: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.runner.task_worker", str(folder), str(rank)]
    return subprocess.Popen([*command, str(count), *deadly], stdout=subprocess.PIPE, text=True)


def test_tasks_that_kill_their_workers_are_tried_last_alone_and_then_named(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    deadly, count = ["00002", "00005"], 40
    deaths, ended = 0, []
    while deaths < 12 and not ended:
        workers = [start(tmp_path, rank, count, deadly) for rank in range(2)]
        outputs = [worker.communicate(timeout=60)[0] for worker in workers]
        deaths += sum(worker.returncode == -9 for worker in workers)
        ended = [text for worker, text in zip(workers, outputs) if worker.returncode == 0]
    assert deaths == 6, "three for each of the two"
    assert all(f"task {task}, after 3 attempts: its workers died" in ended[0] for task in deadly)
    tries = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(task for task, _ in tries if task not in deadly) == [
        f"{i:05d}" for i in range(count) if f"{i:05d}" not in deadly
    ], "each of the others was done once"
    for task in deadly:
        assert [there for name, there in tries if name == task][-1] == str(count - 2)


def test_a_last_try_waits_for_whatever_others_are_at(tmp_path: Path) -> None:
    ours = Claims(tmp_path, Worker.current(), lease_seconds=60)
    for _ in range(2):
        taken = ours.take("00000")
        assert taken is not None
        ours.fail(taken, "boom")
    other = ours.take("00001")
    assert other is not None
    tasks = Files(tmp_path, ours, ["00000", "00001"], set())
    loop = ClaimLoop(ours, tasks, StopRequest(), 60.0)
    assert not loop._last_try(tasks.pending(), ours.attempts())
    ours.release(other)
    assert not loop._last_try(tasks.pending(), ours.attempts()), "it is free: done before"
    loop.finish()
    assert (tmp_path / "log").read_text().splitlines() == ["00001 0", "00000 1"]
    assert not is_set_aside(ours.of("00000"))
