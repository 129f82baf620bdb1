"""World-size truth: 1, 2 or 3 processes, killed and continued, give the same bytes and numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.runner.conftest import STARTED, bytes_of, command, launch
from tests.waiting import PATIENCE, until


def numbers(run: Path) -> dict[str, Any]:
    """Name → value and interval of every metric."""
    record = json.loads((run / "metrics.json").read_text())
    return {
        m["name"]: (m["value"], m["n"], m["interval"] and (m["interval"]["low"], m["interval"]["high"]))
        for m in record["metrics"]
    }  # fmt: skip


def assert_same_numbers(ours: Path, theirs: Path) -> None:
    """Equal to 12 significant digits."""
    mine, other = numbers(ours), numbers(theirs)
    assert mine.keys() == other.keys()
    for name, (value, n, interval) in mine.items():
        assert value == pytest.approx(other[name][0], rel=1e-12, abs=1e-12), name
        assert n == other[name][1]
        assert (interval or ()) == pytest.approx(other[name][2] or (), rel=1e-9, abs=1e-9), name


@pytest.fixture
def config_file(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings()))
    return path


def undisturbed_run(config_file: Path, output: Path, cache: Path) -> Path:
    """The run of a single process that nobody interrupts."""
    done = launch("python", 1, ["run", str(config_file), "--output", str(output)], cache=cache)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture
def alone(config_file: Path, tmp_path: Path) -> Path:
    return undisturbed_run(config_file, tmp_path / "alone", tmp_path / "cache-alone")


@pytest.mark.parametrize(("kind", "processes"), [("accelerate", 2), ("torchrun", 3)])
def test_any_world_gives_the_same_bytes_and_numbers(
    kind: str, processes: int, config_file: Path, alone: Path, tmp_path: Path
) -> None:
    done = launch(
        kind, processes, ["run", str(config_file), "--output", str(tmp_path / "many")],
        cache=tmp_path / "cache-many",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert bytes_of(tmp_path / "many") == bytes_of(alone)
    assert_same_numbers(tmp_path / "many", alone)
    (record,) = (tmp_path / "many" / "launches").glob("*.json")
    assert json.loads(record.read_text())["world_size"] == processes
    again = launch("accelerate", 2, ["aggregate", str(tmp_path / "many")], cache=tmp_path / "c")
    assert again.returncode == 0, again.stderr
    assert_same_numbers(tmp_path / "many", alone)


def start(config_file: Path, output: Path, cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "EVALUATOR_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    worker = subprocess.Popen(
        [*command("python", 1), "run", str(config_file), "--output", str(output)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip
    STARTED.append(worker)
    return worker


def wait_until_in_mid_shard(run: Path, worker: subprocess.Popen[str]) -> None:
    """Until one of three shards is committed, and a claim on another shows progress.

    The third is still to be made: so much time there is to disturb it.
    """

    def in_mid_shard() -> bool:
        assert worker.poll() is None, worker.stdout.read() if worker.stdout else ""
        committed = os.listdir(run / "shards") if (run / "shards").is_dir() else []
        for claim in (run / "claims").glob("[0-9]*.0") if len(committed) == 1 else ():
            try:
                record = json.loads(claim.read_text())
            except (OSError, ValueError):
                continue
            if record["state"] == "held" and record["done"] and claim.stem not in committed:
                return True
        return False

    until("the worker is in its second shard", in_mid_shard)


@pytest.fixture
def slow_config(settings: Callable[..., dict[str, Any]], tmp_path: Path) -> Path:
    """Enough steps that a worker can be met in the middle of a shard."""
    path = tmp_path / "slow.yaml"
    changes = {"generation": {"steps": 30}, "prompts": {"limit": 9}}
    path.write_text(yaml.safe_dump(settings(**changes)))
    return path


@pytest.fixture
def undisturbed(slow_config: Path, tmp_path: Path) -> Path:
    return undisturbed_run(slow_config, tmp_path / "undisturbed", tmp_path / "cache")


def test_a_worker_killed_in_mid_shard_loses_nothing_committed(
    slow_config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    worker = start(slow_config, run, tmp_path / "cache")
    wait_until_in_mid_shard(run, worker)
    worker.kill()
    worker.wait(PATIENCE)
    committed = bytes_of(run)
    assert committed
    state = launch("python", 1, ["status", str(run)], cache=tmp_path / "cache")
    assert state.returncode == 3, "incomplete"
    done = launch(
        "accelerate", 2, ["run", str(slow_config), "--output", str(run)], cache=tmp_path / "cache"
    )
    assert done.returncode == 0, done.stderr
    assert bytes_of(run) == bytes_of(undisturbed)
    assert committed.items() <= bytes_of(run).items()
    assert_same_numbers(run, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_worker_told_to_stop_leaves_75_and_can_be_continued(
    number: signal.Signals, slow_config: Path, tmp_path: Path, undisturbed: Path
) -> None:
    run = tmp_path / "stopped"
    worker = start(slow_config, run, tmp_path / "cache")
    wait_until_in_mid_shard(run, worker)
    worker.send_signal(number)
    output, _ = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 75, output
    assert "Run the same command again" in output
    assert "Traceback" not in output
    assert not list((run / "staging").iterdir())
    claims = [json.loads(path.read_text())["state"] for path in (run / "claims").iterdir()]
    assert "held" not in claims
    done = launch(
        "python", 1, ["run", str(slow_config), "--output", str(run)], cache=tmp_path / "cache"
    )
    assert done.returncode == 0, done.stderr
    assert bytes_of(run) == bytes_of(undisturbed)


def test_independent_workers_share_one_run(config_file: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "shared"
    workers = [start(config_file, run, tmp_path / "cache-shared") for _ in range(3)]
    outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], outputs
    assert bytes_of(run) == bytes_of(alone)
    assert_same_numbers(run, alone)
    said = [
        [line for line in output.splitlines() if line.startswith(("fd_digits", "clip_score"))]
        for output in outputs
    ]
    assert len(said[0]) == 2
    assert said == said[:1] * 3, "whoever computed it"


def test_too_few_processes_for_what_was_asked_is_an_error(
    config_file: Path, tmp_path: Path
) -> None:
    import sys

    trap = [
        sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu",
        "--num_processes", "2", "-m", "evaluator", "run", str(config_file),
    ]  # fmt: skip
    done = subprocess.run(trap, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode != 0
    assert "expected 2 processes as asked for, got 1" in done.stderr
    asked = ["run", str(config_file), "--set", "runtime.num_processes=2"]
    done = launch("python", 1, asked, cache=tmp_path / "c")
    assert done.returncode == 2
    assert "expected 2 processes as asked for, got 1" in done.stderr
