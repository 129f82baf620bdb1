"""Processes that `srun` started, without a launcher of torch's between."""

from __future__ import annotations

import re
from collections.abc import Mapping


def world_of_srun(environment: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would have set, for one of several tasks of an `srun` step; else nothing.

    A batch script is no step, though SLURM tells it of tasks. What a launcher has set stands, and
    MASTER_ADDR and MASTER_PORT where they are given.
    """
    size = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if "SLURM_STEP_ID" not in environment or size == "1" or "WORLD_SIZE" in environment:
        return {}
    node = int(environment["SLURM_NODEID"])
    tasks = tasks_of_nodes(environment["SLURM_STEP_TASKS_PER_NODE"])
    alone = len(tasks) == 1
    head = "127.0.0.1" if alone else first_node(environment["SLURM_STEP_NODELIST"])
    # Jobs on one node have ports of their own, below those that the system gives out.
    job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": size,
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(tasks[node]),
        "MASTER_ADDR": environment.get("MASTER_ADDR", head),
        "MASTER_PORT": environment.get("MASTER_PORT", str(20000 + (job + 97 * step) % 10000)),
    }


def launch_of_srun(environment: Mapping[str, str]) -> str | None:
    """What all tasks of a job's step have in common, and the tasks of a job array; None elsewhere.

    A job that was put into the queue again is the same launch.
    """
    if "SLURM_STEP_ID" not in environment or "SLURM_PTY_PORT" in environment:
        return None  # in a shell, each command is a launch of its own
    job = environment.get("SLURM_ARRAY_JOB_ID") or environment["SLURM_JOB_ID"]
    return f"slurm-{job}.{environment['SLURM_STEP_ID']}"


def tasks_of_nodes(text: str) -> list[int]:
    """Tasks of each node as SLURM writes them: `2(x3),1` is 2, 2, 2, 1."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        assert match is not None, f"expected SLURM's form, such as 2(x3),1, got {text!r}"
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def first_node(nodes: str) -> str:
    """The first name in a list of SLURM's: `gpu[007-009,12],login` begins with `gpu007`."""
    match = re.match(r"([^,\[]+)(?:\[([^,\-\]]+)[^\]]*\]([^,\[]*))?", nodes)
    assert match is not None, f"expected a list of nodes, got {nodes!r}"
    return "".join(part or "" for part in match.groups())
