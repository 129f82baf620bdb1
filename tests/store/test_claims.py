"""Claims: one winner each, renewed by progress, lapsed when the owner is gone."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import pytest

from evaluator.store.claims import (
    Claim,
    Claims,
    Worker,
    counted,
    is_last_try,
    is_set_aside,
    last_error,
)
from tests.waiting import PATIENCE, running


def claims(
    folder: Path, *, lease: float = 60.0, worker: Worker | None = None, launch: str | None = None
) -> Claims:
    return Claims(folder, worker or Worker.current(), lease_seconds=lease, launch=launch)


def test_a_task_has_one_owner(tmp_path: Path) -> None:
    first, second = claims(tmp_path), claims(tmp_path)
    taken = first.take("00000")
    assert taken is not None
    assert taken.attempt == 0
    assert second.take("00000") is None


def test_a_released_task_is_free_and_counts_as_no_attempt(tmp_path: Path) -> None:
    ours = claims(tmp_path)
    for attempt in range(5):
        taken = ours.take("00000")
        assert taken is not None
        assert taken.attempt == attempt
        ours.release(taken)
    assert counted(ours.of("00000")) == []


def test_a_task_that_failed_three_times_at_one_point_is_set_aside(tmp_path: Path) -> None:
    ours = claims(tmp_path)
    for attempt in range(3):
        taken = ours.take("00000", alone=attempt == 2)
        assert taken is not None
        ours.fail(taken, f"boom {attempt}")
    assert is_set_aside(ours.of("00000"))
    assert ours.take("00000", alone=True) is None
    assert last_error(ours.of("00000")) == "boom 2"


def test_the_last_try_is_made_alone_and_forgiving_starts_anew(tmp_path: Path) -> None:
    ours = claims(tmp_path)
    for _ in range(2):
        taken = ours.take("00000")
        assert taken is not None
        ours.fail(taken, "boom")
    assert ours.take("00000") is None
    assert not ours.forgive("00000"), "it was not set aside yet"
    last = ours.take("00000", alone=True)
    assert last is not None
    ours.fail(last, "boom")
    assert ours.forgive("00000")
    assert not ours.forgive("00000"), "once is enough, whoever asks"
    assert counted(ours.of("00000")) == []
    again = ours.take("00000")
    assert again is not None
    assert again.attempt == 4


def fail(ours: Claims, times: int) -> None:
    for _ in range(times):
        taken = ours.take("00000") or ours.take("00000", alone=True)
        assert taken is not None
        ours.fail(taken, "boom")


def test_a_launch_forgives_once_whichever_of_its_processes(tmp_path: Path) -> None:
    fail(claims(tmp_path, launch="before"), 3)
    first, late = claims(tmp_path, launch="now"), claims(tmp_path, launch="now")
    assert first.forgive("00000")
    fail(first, 3)
    assert is_set_aside(first.of("00000"))
    assert not late.forgive("00000")
    assert not first.forgive("00000"), "a second round of its own"
    assert claims(tmp_path, launch="next").forgive("00000")


def test_what_a_launch_itself_set_aside_stays_so(tmp_path: Path) -> None:
    fail(claims(tmp_path, launch="before"), 2)
    ours = claims(tmp_path, launch="now")
    fail(ours, 1)
    assert not ours.forgive("00000")
    unknown = claims(tmp_path)
    assert unknown.forgive("00000"), "claims of a release that did not note launches"


def test_clean_releases_between_failures_change_nothing(tmp_path: Path) -> None:
    ours = claims(tmp_path)
    for end in ("fail", "release", "fail", "release", "release"):
        taken = ours.take("00000", alone=True)
        assert taken is not None
        if end == "fail":
            ours.fail(taken, "boom")
        else:
            ours.release(ours.renew(taken, done=7))
    assert is_last_try(ours.of("00000"))


def test_an_attempt_that_another_followed_counts_as_lapsed(tmp_path: Path) -> None:
    gone = replace(Worker.current(), started="1")
    for _ in range(2):
        assert claims(tmp_path, worker=gone).take("00000") is not None
    assert claims(tmp_path).take("00000", alone=True) is not None
    elsewhere = replace(Worker.current(), host="another-machine")
    seen = claims(tmp_path, worker=elsewhere).of("00000")
    assert len(counted(seen)) == 2


def made_older(path: Path, seconds: float) -> None:
    """As if its owner had been still for so long: no test needs to wait, or to be quick."""
    about = path.stat()
    os.utime(path, (about.st_atime, about.st_mtime - seconds))


def test_the_first_sign_of_progress_may_take_longer(tmp_path: Path) -> None:
    elsewhere = replace(Worker.current(), host="another-machine")
    owner, other = claims(tmp_path, lease=600.0, worker=elsewhere), claims(tmp_path)
    taken = owner.take("00000", allowance=3600.0)
    assert taken is not None
    made_older(tmp_path / "00000.0", 1200)
    assert other.take("00000") is None, "it loads and compiles"
    owner.renew(taken, done=1)
    made_older(tmp_path / "00000.0", 1200)
    assert other.take("00000") is not None, "from now on it must advance"


def test_a_renewal_while_the_claim_is_being_read_is_no_lapse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It allows less time than the first sign of progress could take, which is over."""
    elsewhere = replace(Worker.current(), host="another-machine")
    owner, other = claims(tmp_path, lease=600.0, worker=elsewhere), claims(tmp_path)
    taken = owner.take("00000", allowance=3600.0)
    assert taken is not None
    made_older(tmp_path / "00000.0", 1200)
    renewed: list[Claim] = []

    def then_renewed(look: Callable[..., Any]) -> Callable[..., Any]:
        def look_and_renew(path: Path, *how: Any, **more: Any) -> Any:
            found = look(path, *how, **more)
            if path.name == "00000.0" and not renewed:
                renewed.append(owner.renew(taken, done=1))
            return found

        return look_and_renew

    for look in ("stat", "open"):
        monkeypatch.setattr(Path, look, then_renewed(getattr(Path, look)))
    assert other.take("00000") is None
    assert renewed


def test_a_lease_from_the_future_lapses_when_it_is_seen_not_to_change(tmp_path: Path) -> None:
    elsewhere = replace(Worker.current(), host="another-machine")
    owner, other = claims(tmp_path, lease=0.3, worker=elsewhere), claims(tmp_path)
    assert owner.take("00000") is not None
    tomorrow = time.time() + 86_400
    os.utime(tmp_path / "00000.0", (tomorrow, tomorrow))
    assert other.take("00000") is None
    time.sleep(0.5)
    assert other.take("00000") is not None, "the file server's clock was set back"


def test_no_clock_of_a_machine_is_read() -> None:
    """Only times of files on one file system, and time that passes in one process."""
    import ast

    from evaluator.store import claims as module

    tree = ast.parse(Path(str(module.__file__)).read_text())
    read = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in read if name.startswith("time.")} == {"time.monotonic"}


def test_deaths_at_different_points_do_not_set_a_task_aside(tmp_path: Path) -> None:
    ours = claims(tmp_path)
    for done in range(5):
        taken = ours.take("00000")
        assert taken is not None
        ours.fail(ours.renew(taken, done=done), "killed")
    assert ours.take("00000") is not None


def test_a_lease_lapses_without_progress_and_not_with_it(tmp_path: Path) -> None:
    elsewhere = replace(Worker.current(), host="another-machine")
    owner, other = claims(tmp_path, lease=600.0, worker=elsewhere), claims(tmp_path)
    taken = owner.take("00000")
    assert taken is not None
    for done in range(4):
        made_older(tmp_path / "00000.0", 500)
        taken = owner.renew(taken, done=done)
        made_older(tmp_path / "00000.0", 500)
        assert other.take("00000") is None
    made_older(tmp_path / "00000.0", 101)
    stolen = other.take("00000")
    assert stolen is not None
    assert stolen.attempt == 1


def test_the_claim_of_a_dead_process_of_this_machine_lapses_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from evaluator.store.claims import *\n"
        "Claims(pathlib.Path(sys.argv[1]), Worker.current(), lease_seconds=3600).take('00000')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    taken = claims(tmp_path).take("00000")
    assert taken is not None
    assert taken.attempt == 1


def test_a_process_with_a_recycled_pid_is_not_the_owner() -> None:
    assert not Worker.current().is_gone()
    assert replace(Worker.current(), started="1").is_gone()
    assert not replace(Worker.current(), host="another-machine", pid=2**22 + 1).is_gone()


def test_a_half_written_claim_is_somebodys_until_it_lapses(tmp_path: Path) -> None:
    (tmp_path / "00000.0").write_bytes(b"")
    assert claims(tmp_path).take("00000") is None
    assert claims(tmp_path, lease=3600).take("00000") is None
    os.utime(tmp_path / "00000.0", (0, 0))
    assert claims(tmp_path).take("00000") is not None


def test_a_claim_that_was_never_written_is_not_waited_for_a_whole_lease(tmp_path: Path) -> None:
    (tmp_path / "00000.0").write_bytes(b"")
    now = (tmp_path / "00000.0").stat().st_mtime
    os.utime(tmp_path / "00000.0", (now - 31, now - 31))
    taken = claims(tmp_path, lease=3600).take("00000")
    assert taken is not None
    assert taken.attempt == 1
    os.utime(tmp_path / "00000.1", (now - 31, now - 31))
    assert claims(tmp_path, lease=3600).take("00000") is None, "this one was"


def _contend(
    folder: str, begin: Barrier, won: multiprocessing.Queue[list[int]], stay: Event
) -> None:
    ours = Claims(Path(folder), Worker.current(), lease_seconds=600)
    begin.wait(PATIENCE)
    won.put([task for task in range(60) if ours.take(f"{task:05d}") is not None])
    # The claims of a process that ended would be free for the others.
    assert stay.wait(PATIENCE), "nobody said that all had tried"


def test_contenders_never_share_a_task(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    won: multiprocessing.Queue[list[int]] = context.Queue()
    begin, stay = context.Barrier(8), context.Event()
    workers = [
        context.Process(target=_contend, args=(str(tmp_path), begin, won, stay)) for _ in range(8)
    ]
    with running(workers):
        tasks = [task for _ in workers for task in won.get(timeout=PATIENCE)]
        stay.set()
    assert sorted(tasks) == list(range(60))


@pytest.mark.parametrize("state", ["held", "released", "failed", "done"])
def test_attempts_lists_every_task_with_its_state(tmp_path: Path, state: str) -> None:
    ours = claims(tmp_path)
    taken = ours.take("00007")
    assert taken is not None
    {"held": lambda c: None, "released": ours.release, "failed": lambda c: ours.fail(c, "x"),
     "done": lambda c: ours.finish(c, done=3)}[state](taken)  # fmt: skip
    (found,) = ours.attempts()["00007"]
    assert isinstance(found, Claim)
    assert found.state == state
