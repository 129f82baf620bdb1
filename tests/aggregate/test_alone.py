"""Processes that synchronize agree on how it ends: all together, or the main process alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.runner.conftest import *  # noqa: F403 - the fixtures of a small run
from tests.runner.conftest import run_here


def test_alone_means_alone_also_within_a_process_group(configured, tmp_path):
    outcome = run_here(configured(probes=None), tmp_path / "run")
    rank = Path(__file__).with_name("alone_rank.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc_per_node=2", str(rank), str(outcome.run.path), str(tmp_path / "out")],
        capture_output=True, text=True, timeout=300, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = outcome.summary.record()["metrics"]
    assert json.loads((tmp_path / "out").read_text()) == expected


def test_a_shard_that_one_process_cannot_read_stops_all_of_them(configured, tmp_path):
    run = run_here(configured(probes=None), tmp_path / "run").run
    last = run.shard_path(run.num_shards - 1) / "samples.parquet"
    last.write_bytes(last.read_bytes()[:-100])
    rank = Path(__file__).with_name("damaged_rank.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc_per_node=2", str(rank), str(run.path), str(tmp_path / "rank")],
        capture_output=True, text=True, timeout=300, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = {(tmp_path / f"rank{number}").read_text() for number in range(2)}
    assert len(said) == 1
    assert str(last) in said.pop()
