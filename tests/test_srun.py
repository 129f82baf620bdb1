"""What SLURM tells a task, as what torch's launchers would have told it."""

from __future__ import annotations

import pytest

from evaluator.srun import first_node, launch_of_srun, tasks_of_nodes, world_of_srun

# As `srun` of SLURM 22.05 set it on the second of three nodes, in the step's fifth task.
STEP = {
    "SLURM_JOB_ID": "12345", "SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_TASKS_PER_NODE": "3(x2),1", "SLURM_STEP_NODELIST": "n[0-2]",
    "SLURM_PROCID": "4", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
}  # fmt: skip


def test_a_task_of_a_step_is_a_rank() -> None:
    assert world_of_srun(STEP) == {
        "RANK": "4", "WORLD_SIZE": "7", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3",
        "MASTER_ADDR": "n0", "MASTER_PORT": "22442",
    }  # fmt: skip


def test_all_tasks_of_a_submission_are_one_launch_whenever_they_start() -> None:
    assert launch_of_srun(STEP) == "slurm-12345.1"
    tasks = [{**STEP, "SLURM_ARRAY_JOB_ID": "99", "SLURM_JOB_ID": job} for job in ("100", "101")]
    assert {launch_of_srun(task) for task in tasks} == {"slurm-99.1"}
    shell = {name: value for name, value in STEP.items() if name != "SLURM_STEP_ID"}
    assert launch_of_srun(shell) is None, "each command in it is a launch of its own"
    assert launch_of_srun({**STEP, "SLURM_PTY_PORT": "1"}) is None, "so in `srun --pty bash`"
    assert launch_of_srun({}) is None


def test_tasks_of_one_machine_meet_on_its_loopback_address() -> None:
    one = {**STEP, "SLURM_STEP_TASKS_PER_NODE": "7", "SLURM_NODEID": "0"}
    assert world_of_srun(one)["MASTER_ADDR"] == "127.0.0.1"


def test_what_is_given_stands() -> None:
    given = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"}
    assert given.items() <= world_of_srun({**STEP, **given}).items()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {name: value for name, value in STEP.items() if name != "SLURM_STEP_ID"},  # a batch script
        {**STEP, "SLURM_STEP_NUM_TASKS": "1"},  # an interactive shell
        {**STEP, "RANK": "0", "WORLD_SIZE": "2"},  # a launcher inside the task
    ],
)
def test_where_srun_is_not_the_launcher_nothing_is_set(environment: dict[str, str]) -> None:
    assert world_of_srun(environment) == {}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n0", "n0"), ("n[0-3]", "n0"), ("gpu[007-009,12],login", "gpu007"), ("a,b", "a"),
        ("rack-2-gpu[3,5]", "rack-2-gpu3"), ("n[1-2]-ib", "n1-ib"), ("login,n[0-3]", "login"),
    ],
)  # fmt: skip
def test_the_first_of_a_list_of_nodes(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_tasks_of_each_node() -> None:
    assert tasks_of_nodes("2(x3),1") == [2, 2, 2, 1]
    assert tasks_of_nodes("8") == [8]
