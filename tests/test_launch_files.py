"""The launch files without a cluster; on a real one: tests/cluster."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*(ROOT / "launch").glob("*.sh"), *(ROOT / "launch").glob("*.sbatch")])


def submit(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", ROOT / "launch" / "submit.sh", *map(str, arguments)],
        cwd=cwd, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip


def would_submit(*arguments: object, cwd: Path) -> list[list[str]]:
    """The calls of sbatch that a submission would make."""
    done = submit("--dry-run", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stderr.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my config.yaml").write_text("name: mine\n")
    return tmp_path


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_bash(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)


def test_both_kinds_of_workers_decide_alike_whether_to_go_on() -> None:
    # A script of SLURM's is copied to the node, and can source nothing that lies beside it.
    texts = [(ROOT / f"launch/slurm-{kind}.sbatch").read_text() for kind in ("array", "multinode")]
    first, second = (re.search(r"\nend_with\(\) \{.*?\n\}\n", text, re.DOTALL) for text in texts)
    assert first is not None
    assert second is not None
    assert first[0] == second[0]


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., tuple[int, list[str], str]]:
    """Runs a job's script where srun and `evaluator status` only end as told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, does in {
        "srun": 'exit "$WORK"', "python": 'exit "$STATE"', "scontrol": ":", "sleep": ":",
    }.items():  # fmt: skip
        program = folder / name
        program.write_text(f'#!/bin/bash\necho "{name} $*" >> "$CALLS"\n{does}\n')
        program.chmod(0o755)

    def run(kind: str, **told: object) -> tuple[int, list[str], str]:
        calls = tmp_path / "calls"
        calls.write_text("")
        environment = {
            "PATH": f"{folder}:/usr/bin:/bin", "CALLS": str(calls), "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n0", **{name: str(value) for name, value in told.items()},
        }  # fmt: skip
        done = subprocess.run(
            ["bash", ROOT / f"launch/slurm-{kind}.sbatch", "c.yaml", "run"],
            env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        last = [line for line in calls.read_text().splitlines() if "sleep" in line or "req" in line]
        return done.returncode, last, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("kind", ["array", "multinode"])
@pytest.mark.parametrize(
    ("work", "restarts", "seconds"),
    [(1, 0, 15), (1, 2, 60), (137, 1, 30), (1, 99, 300), (75, 9, 0), (143, 3, 0), (0, 1, 0)],
)
def test_a_fault_that_is_no_shards_is_waited_out_longer_each_time(
    node: Callable[..., tuple[int, list[str], str]],
    kind: str,
    work: int,
    restarts: int,
    seconds: int,
) -> None:
    status, calls, said = node(kind, WORK=work, STATE=3, SLURM_RESTART_COUNT=restarts)
    assert status == 75
    pause = [f"sleep {seconds}"] if seconds else []
    assert calls == [*pause, "scontrol requeue 7"]
    assert (f"ended with {work}, for a fault that is no shard's" in said) == bool(pause)
    assert (f"waiting {seconds} s before the next start" in said) == bool(pause)


@pytest.mark.parametrize(
    ("work", "state", "restarts", "status"),
    [(0, 0, 0, 0), (1, 1, 0, 1), (2, 3, 0, 2), (1, 3, 100, 3), (4, 2, 0, 4)],
)
def test_what_is_not_to_start_again_waits_for_nothing(
    node: Callable[..., tuple[int, list[str], str]],
    work: int,
    state: int,
    restarts: int,
    status: int,
) -> None:
    told = {"WORK": work, "STATE": state, "SLURM_RESTART_COUNT": restarts}
    assert node("array", **told)[:2] == (status, [])


def test_an_array_of_workers_and_the_numbers_after_them(folder: Path) -> None:
    workers, numbers = would_submit(
        "--partition=low prio", "--account", "lab", "--time", "4:00:00", "--tasks", 16, "--gpus=2",
        "--cpus", 6, "--sbatch", "--constraint=a100|h100", "--output", "my runs/a",
        "my config.yaml", "--", "--limit", 5, cwd=folder,
    )  # fmt: skip
    assert workers == [
        "sbatch", "--partition=low prio", "--account=lab", "--time=4:00:00", "--gpus-per-node=2",
        "--cpus-per-task=6", "--ntasks-per-node=2", "--array=0-15",
        "--output=my runs/a.logs/%x-%A_%a.log", "--constraint=a100|h100",
        str(ROOT / "launch" / "slurm-array.sbatch"), "my config.yaml", "my runs/a", "--limit", "5",
    ]  # fmt: skip
    assert numbers == [
        "sbatch", "--account=lab", "--partition=low prio", "--dependency=afterany:JOB",
        "--output=my runs/a.logs/%x-%j.log", str(ROOT / "launch" / "slurm-aggregate.sbatch"),
        "my runs/a",
    ]  # fmt: skip


def test_one_launch_over_nodes(folder: Path) -> None:
    workers, numbers = would_submit(
        "--nodes", 4, "--gpus", 8, "--cpus", 6, "--aggregate-partition", "cpu", "--partition", "gpu",
        "--output", "run", "my config.yaml", cwd=folder,
    )  # fmt: skip
    assert {"--nodes=4", "--gpus-per-node=8", "--cpus-per-task=48"} <= set(workers)
    assert str(ROOT / "launch" / "slurm-multinode.sbatch") in workers
    assert [word for word in numbers if "partition" in word][-1] == "--partition=cpu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a CONFIG, got none"),
        (["nowhere.yaml"], "nowhere.yaml: expected a configuration file, got nothing there"),
        (["--tasks", "many", "my config.yaml"], "expected a number, got 'many'"),
        (["--tasks", "0", "my config.yaml"], "--tasks: expected at least 1"),
        (["--task", "4", "my config.yaml"], "unknown option --task"),
        (["my config.yaml", "--nodes"], "expected a value after --nodes, got none"),
        (["my config.yaml", "other.yaml"], "expected one CONFIG, got 'my config.yaml' and"),
        (["my config.yaml", "--", "--limit", "5"], "expected --output RUN together with"),
        (["--environment", "none.sh", "my config.yaml"], "none.sh: expected a file to source"),
        (["my config.yaml"], "model: expected a value, got none"),
    ],
)
def test_what_cannot_be_submitted_is_refused(
    arguments: list[str], message: str, folder: Path
) -> None:
    done = submit("--dry-run", *arguments, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr
    assert "sbatch --" not in done.stderr


def test_the_run_is_where_the_configuration_says(folder: Path) -> None:
    (workers, _) = would_submit(ROOT / "configs" / "digits.yaml", cwd=folder)
    assert workers[-1] == "runs/digits"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "launch/accelerate").iterdir()), ids=lambda p: p.name
)
def test_no_file_of_accelerate_asks_for_the_kind_that_starts_one_process_only(path: Path) -> None:
    record = yaml.safe_load(path.read_text())
    # MULTI_CPU would, and say nothing.
    assert record["distributed_type"] == "MULTI_GPU"
