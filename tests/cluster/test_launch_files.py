"""The real launch files on a real SLURM: whatever happens, the run of a single process comes out."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cluster.conftest import NUM_SHARDS, Site, Submitted
from tests.cluster.slurm import Job, SlurmError, until
from tests.runner.conftest import bytes_of
from tests.runner.test_worlds import assert_same_numbers

pytestmark = pytest.mark.slow


def assert_as_undisturbed(submitted: Submitted, undisturbed: Path, site: Site) -> None:
    """Complete, with the bytes and numbers of a single process."""
    state = site.here("status", str(submitted.run))
    assert state.returncode == 0, state.stdout + submitted.logs
    assert bytes_of(submitted.run) == bytes_of(undisturbed)
    assert_same_numbers(submitted.run, undisturbed)


def ended(submitted: Submitted, *jobs: str) -> list[Job]:
    found = submitted.slurm.until_ended(*jobs)
    assert all(job.state == "COMPLETED" and job.exit_status == 0 for job in found), (
        f"{found}\n{submitted.logs}"
    )
    return found


def test_one_launch_over_nodes_told_to_stop_before_its_time_limit(
    site: Site, undisturbed: Path
) -> None:
    submitted = site.submit("--nodes", "2", run="runs of mine/nodes")
    slurm = submitted.slurm
    slurm.run("scancel", submitted.numbers)
    submitted.until_in_the_middle()
    # What --signal=USR1@120 does here: every process of the tasks gets it.
    slurm.run("scancel", "--signal=USR1", submitted.workers)
    until("it starts again", lambda: "restart 1: my digits.yaml" in submitted.logs)
    submitted.until_in_the_middle()
    # And with cgroups: the tasks alone get it, which are shells.
    slurm.tell_tasks(submitted.workers, signal.SIGUSR1)
    (job,) = ended(submitted, submitted.workers)
    # Each process ended in order both times.
    for rank in range(2):
        assert submitted.logs.count(f"error (rank {rank}): told to stop by SIG") == 2
    assert "putting this job into the queue again (restart 2 of 100)" in submitted.logs
    assert job.restarts == 2
    assert "[" in job.node, "a list of nodes"
    assert_as_undisturbed(submitted, undisturbed, site)
    launches = [json.loads(p.read_text()) for p in (submitted.run / "launches").iterdir()]
    assert [launch["world_size"] for launch in launches] == [2, 2, 2]


def test_an_array_of_workers_preempted_by_a_partition_of_higher_priority(
    site: Site, undisturbed: Path
) -> None:
    submitted = site.submit("--tasks", "2", run="runs of mine/preempted")
    slurm = submitted.slurm
    submitted.until_in_the_middle()
    urgent = slurm.run(
        "sbatch", "--parsable", "--partition=high", "--nodes=4", "--exclusive",
        "--output=/dev/null", "--wrap=sleep 1",
    ).strip()  # fmt: skip
    ended(submitted, urgent)
    assert submitted.committed < NUM_SHARDS
    workers = ended(submitted, submitted.workers)
    assert [worker.restarts for worker in workers] == [1, 1]
    assert len({worker.node for worker in workers}) == 2
    assert "told to stop by SIGTERM" in submitted.logs

    # The dependency waited for the second start too.
    (numbers,) = ended(submitted, submitted.numbers)
    assert numbers.began >= max(worker.finished for worker in workers)
    assert (submitted.run / "report" / "index.html").is_file()
    assert_as_undisturbed(submitted, undisturbed, site)
    launches = [json.loads(p.read_text()) for p in (submitted.run / "launches").iterdir()]
    assert {launch["world_size"] for launch in launches} == {1}
    timings = [pq.read_table(p) for p in submitted.run.glob("shards/*/timings.parquet")]
    assert {device for t in timings for device in t.column("device").to_pylist()} == {"cpu"}


def test_a_node_lost_in_mid_job(site: Site, undisturbed: Path) -> None:
    submitted = site.submit("--tasks", "2", run="runs of mine/lost")
    slurm = submitted.slurm
    slurm.run("scancel", submitted.numbers)
    submitted.until_in_the_middle()
    lost = slurm.jobs(submitted.workers)[0].node
    slurm.lose_node(lost)
    try:
        until("the node is down", lambda: slurm.node_states()[lost].startswith("down"))
        workers = ended(submitted, submitted.workers)
    finally:
        slurm.start_node(lost)
        until("the node is back", lambda: slurm.node_states()[lost] == "idle")
    assert sorted(worker.restarts for worker in workers) == [0, 1]
    assert lost not in {worker.node for worker in workers}
    assert_as_undisturbed(submitted, undisturbed, site)


@pytest.mark.parametrize("which", [-1, 0], ids=["another", "its shell's"])
def test_a_node_of_one_launch_over_two_lost_in_mid_job(
    which: int, site: Site, undisturbed: Path
) -> None:
    submitted = site.submit("--nodes", "2", run=f"runs of mine/lost {which}")
    slurm = submitted.slurm
    slurm.run("scancel", submitted.numbers)
    submitted.until_in_the_middle()
    (job,) = slurm.jobs(submitted.workers)
    # The job's own shell runs on the first: it is lost too, or lives on and hears of it.
    lost = slurm.run("scontrol", "show", "hostnames", job.node).split()[which]
    slurm.lose_node(lost)
    try:
        until("the node is down", lambda: slurm.node_states()[lost].startswith("down"))
        (job,) = ended(submitted, submitted.workers)
        nodes = slurm.run("scontrol", "show", "hostnames", job.node).split()
    finally:
        slurm.start_node(lost)
        until("the node is back", lambda: slurm.node_states()[lost] == "idle")
    assert job.restarts >= 1
    assert len(nodes) == 2
    assert lost not in nodes
    assert_as_undisturbed(submitted, undisturbed, site)
    launches = [json.loads(p.read_text()) for p in (submitted.run / "launches").iterdir()]
    assert {launch["world_size"] for launch in launches} == {2}


def test_restarts_are_bounded_and_the_same_command_continues(site: Site, undisturbed: Path) -> None:
    submitted = site.submit("--tasks", "1", "--restarts", "0", run="runs of mine/bounded")
    slurm = submitted.slurm
    submitted.until_in_the_middle()
    slurm.run("scancel", "--signal=USR1", submitted.workers)
    worker, numbers = slurm.until_ended(submitted.workers, submitted.numbers)
    assert (worker.exit_status, worker.restarts) == (3, 0)
    assert "incomplete after 0 restarts; EVALUATOR_RESTARTS allows no more" in submitted.logs
    assert numbers.exit_status == 3
    assert "no numbers yet; submit the same command again" in submitted.logs
    assert 0 < submitted.committed < NUM_SHARDS

    # Two processes of one task this time, which srun alone launches.
    again = site.submit("--tasks", "1", "--processes", "2", run="runs of mine/bounded")
    slurm.run("scancel", again.numbers)
    ended(again, again.workers)
    assert_as_undisturbed(again, undisturbed, site)
    launches = sorted((again.run / "launches").iterdir())
    assert [json.loads(path.read_text())["world_size"] for path in launches] == [1, 2]


def noise(site: Site, name: str, prompts: int, broken: str) -> str:
    """A configuration whose model draws noise, and fails at one key."""
    (site.folder / f"{name}.txt").write_text("a red seven\n" * prompts)
    (site.folder / f"{name}.yaml").write_text(
        f"name: {name}\nprompts: {{source: {name}.txt}}\n"
        "model: {kind: custom, target: 'tests.runner.custom_models:Noise', "
        f"options: {{broken: ['{broken}']}}}}\n"
        "generation: {height: 32, width: 32}\nruntime: {shard_size: 1, threads: 1}\n"
    )
    return f"{name}.yaml"


def test_what_failed_for_good_is_not_put_into_the_queue_again(site: Site) -> None:
    submitted = site.submit(
        "--tasks", "1", config=noise(site, "broken", prompts=2, broken="0000002"),
        run="runs of mine/broken", arguments=["--allow-code"],
    )  # fmt: skip
    worker, numbers = site.slurm.until_ended(submitted.workers, submitted.numbers)
    assert (worker.exit_status, worker.restarts) == (1, 0)
    assert numbers.exit_status == 1
    assert "this prompt breaks the model" in submitted.logs


def test_a_job_that_its_user_cancels_stays_away(site: Site) -> None:
    submitted = site.submit(
        "--tasks", "1", config=noise(site, "cancelled", prompts=1000, broken="none"),
        run="runs of mine/cancelled", arguments=["--allow-code"],
    )  # fmt: skip
    slurm = submitted.slurm
    submitted.until_in_the_middle()
    slurm.run("scancel", submitted.workers)
    worker, numbers = slurm.until_ended(submitted.workers, submitted.numbers)
    assert (worker.state, worker.restarts) == ("CANCELLED", 0)
    assert "putting this job into the queue again" not in submitted.logs
    assert numbers.exit_status == 3


def test_a_wrong_configuration_is_refused_before_anything_is_queued(site: Site) -> None:
    (site.folder / "wrong.yaml").write_text("name: wrong\nmodle: {}\n")
    with pytest.raises(SlurmError, match="did you mean 'model'"):
        site.submit(config="wrong.yaml")
    assert "wrong" not in site.slurm.run("squeue", "--states=all", "--format=%o")
