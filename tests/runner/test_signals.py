"""Real signals to real workers: what is in hand is kept if there is time, and nothing is halved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluator.errors import Preempted
from evaluator.runner.progress import Progress
from evaluator.stopping import StopRequest, stop_on_signals
from evaluator.store.claims import Claim, Claims, Worker, counted
from evaluator.store.rundir import RunDirectory
from tests.runner.conftest import STARTED, bytes_of
from tests.runner.sleeper import create_run, parse, work
from tests.waiting import PATIENCE, until


def start(run: Path, **options: object) -> subprocess.Popen[str]:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.runner.sleeper", str(run), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    STARTED.append(worker)
    return worker


def undisturbed(path: Path, *words: str) -> dict[str, bytes]:
    options = parse([str(path), "--seconds", "0", *words])
    run = create_run(path, options.samples, options.per_shard)
    assert work(run, options, StopRequest()) == []
    return bytes_of(path)


def claims_of(run: Path) -> dict[str, list[Claim]]:
    return Claims(run / "claims", Worker.current(), lease_seconds=60).attempts()


def wait_for(run: Path, wanted: Callable[[Claim], bool]) -> Claim:
    """The first claim of which `wanted` is true."""
    found: list[Claim] = []

    def look() -> bool:
        attempts = claims_of(run) if (run / "init").is_dir() else {}
        found.extend(claim for of_task in attempts.values() for claim in filter(wanted, of_task))
        return bool(found)

    until(f"a claim is {wanted.__name__}", look)
    return found[0]


def in_mid_shard(claim: Claim) -> bool:
    return claim.state == "held" and claim.done > 0


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, marks=pytest.mark.slow),
    ],
)
def test_the_shard_in_hand_is_finished_where_the_grace_allows(
    number: signal.Signals, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    worker = start(run, seconds=0.1, grace=30)
    shard = wait_for(run, in_mid_shard)
    worker.send_signal(number)
    output, said = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 75, output
    assert f"told to stop by {number.name}" in output
    assert "stopping as soon as" in said
    assert RunDirectory.open(run).is_committed(int(shard.task))
    assert {claims[-1].state for claims in claims_of(run).values()} == {"done"}
    assert list((run / "staging").iterdir()) == []


def test_a_shard_that_takes_longer_than_the_grace_is_given_back_after_its_batch(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    worker = start(run, seconds=0.2, per_shard=400, samples=400, grace=2)
    wait_for(run, in_mid_shard)
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 75, output
    (attempts,) = claims_of(run).values()
    assert attempts[-1].state == "released"
    assert 0 < attempts[-1].done < 400
    assert counted(attempts) == []
    assert RunDirectory.open(run).committed() == []
    assert list((run / "staging").iterdir()) == []


def test_a_batch_that_outlasts_the_grace_is_broken_off(tmp_path: Path) -> None:
    run = tmp_path / "run"
    worker = start(run, seconds=600, grace=0.5)
    wait_for(run, lambda claim: claim.state == "held")
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=PATIENCE)  # a batch takes twenty minutes
    assert worker.returncode == 75, output
    assert "Traceback" not in output
    (attempts,) = claims_of(run).values()
    assert attempts[-1].state == "released"


def test_a_second_interrupt_leaves_at_once_and_loses_nothing_committed(tmp_path: Path) -> None:
    run, two_shards = tmp_path / "run", ("--samples", "160", "--per-shard", "80")
    before = undisturbed(tmp_path / "other", *two_shards)
    undisturbed(run, *two_shards)
    (run / "shards" / "00001").rename(tmp_path / "gone")
    worker = start(run, seconds=0.25, samples=160, per_shard=80, grace=60)
    wait_for(run, in_mid_shard)  # that takes twenty seconds
    worker.send_signal(signal.SIGINT)
    assert worker.stderr is not None
    assert any("stopping as soon as" in line for line in worker.stderr)
    time.sleep(0.7)  # sooner, it would be taken for the same one
    worker.send_signal(signal.SIGINT)
    assert "leaving at once" in worker.stderr.read()
    assert worker.wait(PATIENCE) == 75
    assert {name: before[name] for name in before if "00000" in name} == bytes_of(run) != {}
    assert start(run, seconds=0, samples=160, per_shard=80).wait(PATIENCE) == 0
    assert bytes_of(run) == before


def test_an_interrupt_that_a_launcher_hands_on_is_no_second_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def leave(status: int) -> None:
        raise SystemExit(status)

    now = 100.0
    monkeypatch.setattr("evaluator.stopping.time.monotonic", lambda: now)
    monkeypatch.setattr("evaluator.stopping.os._exit", leave)
    with stop_on_signals(60.0) as stop:
        stop.handle(signal.SIGINT, None)
        now += 0.4
        stop.handle(signal.SIGINT, None)
        assert stop.signal == signal.SIGINT
        now += 0.2
        with pytest.raises(SystemExit, match="75"):
            stop.handle(signal.SIGINT, None)


def test_a_worker_to_whom_nobody_listens_any_more_stops_all_the_same(tmp_path: Path) -> None:
    run = tmp_path / "run"
    worker = start(run, seconds=0.25, grace=60)
    assert worker.stderr is not None
    worker.stderr.close()  # as when a terminal, a pipe or a launcher is gone
    wait_for(run, in_mid_shard)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=PATIENCE) == 75
    assert {claims[-1].state for claims in claims_of(run).values()} == {"done"}


def test_progress_that_nobody_reads_any_more_ends_no_work(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", 8, 4)
    claims = Claims(run.claims_folder, Worker.current(), lease_seconds=60)
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", buffering=1) as stream:
        progress = Progress(run, claims, label="x", speaks=True, stream=stream)
        progress.say("heard")
        assert os.read(reader, 100) == b"heard\n"
        os.close(reader)
        progress.update([])
        progress.say("shard 00001 failed: boom")
        progress.end()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # or closing it would raise here


def test_a_hung_worker_loses_its_shard_and_wakes_to_no_harm(tmp_path: Path) -> None:
    run = tmp_path / "run"
    hung = start(run, seconds=0.05, lease=1.0, samples=40)
    shard = wait_for(run, in_mid_shard)
    hung.send_signal(signal.SIGSTOP)
    other = start(run, seconds=0, lease=1.0, samples=40)
    output, _ = other.communicate(timeout=PATIENCE)
    assert other.returncode == 0, output
    assert RunDirectory.open(run).is_committed(int(shard.task)), "alive, but not advancing"
    committed = bytes_of(run)
    hung.send_signal(signal.SIGCONT)
    output, said = hung.communicate(timeout=PATIENCE)
    assert hung.returncode == 0, output + said
    assert json.loads(output)["errors"] == []
    assert bytes_of(run) == committed == undisturbed(tmp_path / "other", "--samples", "40")


def test_a_shard_is_given_back_whatever_the_worker_leaves_with(tmp_path: Path) -> None:
    class Leaving(StopRequest):
        """As when the grace ends at the very moment in which a batch does."""

        def raise_unless_time_for(self, seconds: float) -> None:
            raise SystemExit(75)

    options = parse([str(tmp_path / "run"), "--seconds", "0"])
    run = create_run(options.run, options.samples, options.per_shard)
    with pytest.raises(SystemExit):
        work(run, options, Leaving())
    (attempts,) = claims_of(options.run).values()
    assert [claim.state for claim in attempts] == ["released"]


def test_only_interruptible_work_is_broken_off_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    reached = []
    with pytest.raises(Preempted, match="told to stop by SIGTERM"), stop_on_signals(0.0) as stop:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)  # the grace is over: this goes on all the same
        reached.append("written")
        with stop.interruptible():
            reached.append("never")
    assert reached == ["written"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_swallows_every_exception_does_not_swallow_the_end_of_the_grace() -> None:
    with pytest.raises(Preempted), stop_on_signals(0.2) as stop, stop.interruptible():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100):
            try:
                time.sleep(0.1)
            except Exception:
                continue
