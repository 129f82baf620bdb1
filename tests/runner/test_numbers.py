"""Independent workers on one run: one computes the numbers, and the others take them."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from evaluator.aggregate.asked import Asked, request_digest
from evaluator.aggregate.compute import aggregate
from evaluator.distributed import World
from evaluator.errors import Preempted
from evaluator.runner.numbers import Numbers
from evaluator.runner.surroundings import Surroundings
from evaluator.runner.trust import Trust
from evaluator.stopping import StopRequest
from evaluator.store.claims import Claim, Claims, Worker
from evaluator.store.rundir import RunDirectory
from tests.runner.sleeper import create_run, parse, work
from tests.waiting import PATIENCE

ASKED = Asked((), {}, {}, {"metrics": ["fid"]})
TASK = f".numbers-{request_digest(ASKED.request)[:16]}"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run whose shards are all there."""
    options = parse([str(tmp_path / "run"), "--seconds", "0", "--samples", "24"])
    made = create_run(options.run, options.samples, options.per_shard)
    assert work(made, options, StopRequest()) == []
    return made


def claims_of(run: RunDirectory, *, rank: int = 0) -> Claims:
    return Claims(run.claims_folder, Worker.current(rank), lease_seconds=60)


def numbers_of(run: RunDirectory, stop: StopRequest | None = None) -> Numbers:
    around = Surroundings(World(), stop or StopRequest(), Trust(), 1)
    return Numbers(run, claims_of(run), around, None, 600.0)


def attempts(run: RunDirectory) -> list[Claim]:
    return claims_of(run).of(TASK)


def dead_worker() -> Worker:
    """One of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    child.communicate(b"\n")
    return replace(Worker.current(), pid=child.pid, started=started)


def written(run: RunDirectory) -> int:
    return (run.path / "metrics.json").stat().st_ino


def test_who_finds_it_being_computed_waits_and_takes_what_comes_out(run: RunDirectory) -> None:
    other = claims_of(run, rank=1)
    held = other.take(TASK)
    assert held is not None
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(numbers_of(run).of, ASKED)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=1.2)
        summary = aggregate(run, ASKED, world=World())
        before = written(run)
        other.finish(held, done=0)
        assert waiting.result(timeout=PATIENCE) == summary
    assert written(run) == before
    assert [claim.state for claim in attempts(run)] == ["done"]


def test_of_workers_that_end_one_after_the_other_the_first_computes(run: RunDirectory) -> None:
    workers = [numbers_of(run) for _ in range(3)]
    first = workers[0].of(ASKED)
    before = written(run)
    assert [worker.of(ASKED) for worker in workers[1:]] == [first, first]
    assert first.counts.committed == 24
    assert written(run) == before
    assert [claim.state for claim in attempts(run)] == ["done"]


def test_what_was_there_before_is_computed_again(run: RunDirectory) -> None:
    aggregate(run, ASKED, world=World())
    before = written(run)
    assert numbers_of(run).of(ASKED).complete
    assert written(run) != before


def test_numbers_of_other_shards_or_another_request_are_not_taken(run: RunDirectory) -> None:
    first, second, third = numbers_of(run), numbers_of(run), numbers_of(run)
    first.of(ASKED)
    other = replace(ASKED, request={"metrics": ["kid"]})
    assert second.of(other).request == request_digest(other.request)
    second.of(ASKED)
    run.shard_path(1).rename(run.path / "quarantine" / "00001.0")
    assert third.of(ASKED).counts.committed == 16
    (run.path / "quarantine" / "00001.0").rename(run.shard_path(1))
    before = written(run)
    assert second.of(ASKED).counts.committed == 24
    assert written(run) != before


def test_where_the_one_who_computed_died_another_does(run: RunDirectory) -> None:
    lost = Claims(run.claims_folder, dead_worker(), lease_seconds=60)
    for _ in range(4):
        lost.take(TASK, alone=True)
        assert numbers_of(run).of(ASKED).complete, "however many died of it"
    states = {claim.state for claim in attempts(run)}
    assert states == {"held", "done"}


def test_who_waits_stops_when_told_to(run: RunDirectory) -> None:
    assert claims_of(run, rank=1).take(TASK) is not None
    stop = StopRequest()
    stop.signal = 15
    with pytest.raises(Preempted, match="told to stop by SIGTERM"):
        numbers_of(run, stop).of(ASKED)
    assert [claim.state for claim in attempts(run)] == ["held"]


def test_who_fails_to_compute_lets_the_next_one_try(run: RunDirectory) -> None:
    stop = StopRequest()
    stop.signal = 15
    with pytest.raises(Preempted):
        numbers_of(run, stop).of(ASKED)
    assert [claim.state for claim in attempts(run)] == ["released"]
    assert numbers_of(run).of(ASKED).complete
    assert [claim.state for claim in attempts(run)] == ["released", "done"]
