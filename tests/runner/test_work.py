"""The claim loop with workers that die: everything else is done, and the killers are named."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from evaluator.errors import GenerationError
from evaluator.runner.work import ClaimLoop
from evaluator.stopping import StopRequest
from evaluator.store.claims import Claims, Worker, counted, is_set_aside
from tests.runner.conftest import STARTED
from tests.runner.task_worker import Failing, Files
from tests.waiting import PATIENCE


def start(folder: Path, rank: int, count: int, deadly: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.runner.task_worker", str(folder), str(rank)]
    worker = subprocess.Popen([*command, str(count), *deadly], stdout=subprocess.PIPE, text=True)
    STARTED.append(worker)
    return worker


def test_tasks_that_kill_their_workers_are_tried_last_alone_and_then_named(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    deadly, count = ["00002", "00005"], 40
    deaths, ended = 0, []
    while deaths < 12 and not ended:
        workers = [start(tmp_path, rank, count, deadly) for rank in range(2)]
        outputs = [worker.communicate(timeout=PATIENCE)[0] for worker in workers]
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


def loop_of(folder: Path, count: int, bad: list[int]) -> tuple[ClaimLoop, list[str]]:
    (folder / "claims").mkdir(exist_ok=True)
    ours = Claims(folder / "claims", Worker.current(), lease_seconds=60)
    names = [f"{i:05d}" for i in range(count)]
    tasks = Failing(folder, ours, names, {names[i] for i in bad})
    return ClaimLoop(ours, tasks, StopRequest(), 60.0), names


@pytest.mark.parametrize("bad", [range(5), range(17, 25), range(31, 40)])
def test_bad_tasks_that_lie_together_do_not_end_the_run(bad: range, tmp_path: Path) -> None:
    loop, names = loop_of(tmp_path, 40, list(bad))
    errors = loop.finish()
    assert [error.split(",")[0] for error in errors] == [f"task {names[i]}" for i in bad]
    assert all("after 3 attempts" in error and "is bad" in error for error in errors)
    done = {path.name for path in (tmp_path / "done").iterdir()}
    assert done == {name for i, name in enumerate(names) if i not in bad}


def test_a_worker_at_which_everything_fails_blames_no_task(tmp_path: Path) -> None:
    loop, _ = loop_of(tmp_path, 40, list(range(40)))
    with pytest.raises(GenerationError, match="3 shards failed in a row"):
        loop.finish()
    attempts = loop.claims.attempts()
    assert len(attempts) == 3
    assert {claims[-1].state for claims in attempts.values()} == {"released"}
    assert max(int(b) - int(a) for a, b in pairwise(sorted(attempts))) > 5, "not neighbours"


def test_a_worker_that_breaks_later_harms_few_tasks(tmp_path: Path) -> None:
    loop, _ = loop_of(tmp_path, 40, list(range(3, 40)))
    with pytest.raises(GenerationError, match="10 shards failed in a row"):
        loop.finish()
    failed = [task for task, claims in loop.claims.attempts().items() if counted(claims)]
    assert len(failed) == 10
    assert not any(is_set_aside(loop.claims.of(task)) for task in failed)


def test_more_bad_tasks_than_a_worker_bears_are_named_by_the_next_start(tmp_path: Path) -> None:
    loop, names = loop_of(tmp_path, 40, list(range(30, 40)))
    with pytest.raises(GenerationError, match="10 shards failed in a row"):
        loop.finish()
    again, _ = loop_of(tmp_path, 40, list(range(30, 40)))
    assert [error.split(",")[0] for error in again.finish()] == [f"task {n}" for n in names[30:]]
