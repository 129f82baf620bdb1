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
from tests.runner.conftest import bytes_of
from tests.runner.sleeper import create_run, parse, work


def start(run: Path, **options: object) -> subprocess.Popen[str]:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.runner.sleeper", str(run), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def undisturbed(path: Path, *words: str) -> dict[str, bytes]:
    options = parse([str(path), "--seconds", "0", *words])
    run = create_run(path, options.samples, options.per_shard)
    assert work(run, options, StopRequest()) == []
    return bytes_of(path)


def claims_of(run: Path) -> dict[str, list[Claim]]:
    return Claims(run / "claims", Worker.current(), lease_seconds=60).attempts()


def wait_for(run: Path, wanted: Callable[[Claim], bool]) -> Claim:
    """The first claim of which `wanted` is true."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for attempts in claims_of(run).values() if (run / "init").is_dir() else ():
            for claim in attempts:
                if wanted(claim):
                    return claim
        time.sleep(0.01)
    raise AssertionError("it never came to that")


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
    output, said = worker.communicate(timeout=60)
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
    worker = start(run, seconds=0.2, per_shard=40, samples=40, grace=2)
    wait_for(run, in_mid_shard)
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=60)
    assert worker.returncode == 75, output
    (attempts,) = claims_of(run).values()
    assert attempts[-1].state == "released"
    assert 0 < attempts[-1].done < 40
    assert counted(attempts) == []
    assert RunDirectory.open(run).committed() == []
    assert list((run / "staging").iterdir()) == []


def test_a_batch_that_outlasts_the_grace_is_broken_off(tmp_path: Path) -> None:
    run = tmp_path / "run"
    worker = start(run, seconds=60, grace=0.5)
    wait_for(run, lambda claim: claim.state == "held")
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=60)
    assert time.monotonic() - began < 50, "a batch takes two minutes"
    assert worker.returncode == 75, output
    assert "Traceback" not in output
    (attempts,) = claims_of(run).values()
    assert attempts[-1].state == "released"


def test_a_second_interrupt_leaves_at_once_and_loses_nothing_committed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    worker = start(run, seconds=0.25, grace=60)
    wait_for(run, lambda claim: claim.state == "done")
    wait_for(run, in_mid_shard)
    before = bytes_of(run)
    worker.send_signal(signal.SIGINT)
    worker.send_signal(signal.SIGINT)  # a launcher hands on what the terminal sent already
    time.sleep(0.7)
    assert worker.poll() is None, "both were one Ctrl-C"
    worker.send_signal(signal.SIGINT)
    _, said = worker.communicate(timeout=10)
    assert worker.returncode == 75
    assert "leaving at once" in said
    assert before
    assert before.items() <= bytes_of(run).items()
    again = start(run, seconds=0)
    assert again.wait(60) == 0
    assert bytes_of(run) == undisturbed(tmp_path / "other")


def test_a_worker_to_whom_nobody_listens_any_more_stops_all_the_same(tmp_path: Path) -> None:
    run = tmp_path / "run"
    worker = start(run, seconds=0.25, grace=60)
    assert worker.stderr is not None
    worker.stderr.close()  # as when a terminal, a pipe or a launcher is gone
    wait_for(run, in_mid_shard)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 75
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
    output, _ = other.communicate(timeout=60)
    assert other.returncode == 0, output
    assert RunDirectory.open(run).is_committed(int(shard.task)), "alive, but not advancing"
    committed = bytes_of(run)
    hung.send_signal(signal.SIGCONT)
    output, said = hung.communicate(timeout=60)
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
