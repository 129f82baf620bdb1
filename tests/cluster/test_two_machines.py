"""Two machines with their own addresses, names and process ids, on one shared file system."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import NUM_SHARDS, ROOT, call_in
from tests.cluster.machines import LINK, Machine, two_machines, unavailable
from tests.cluster.slurm import until
from tests.runner.conftest import bytes_of
from tests.runner.test_worlds import assert_same_numbers

pytestmark = pytest.mark.slow

ENVIRONMENT = f'source "the site.sh" && export GLOO_SOCKET_IFNAME={LINK} && '
WORKER = ENVIRONMENT + 'exec python -m evaluator run "my digits.yaml" "$@"'
LAUNCH = ENVIRONMENT + (
    'exec accelerate launch --config_file "$1" --num_machines 2 --num_processes 2 '
    '--main_process_ip "$2" --machine_rank "$3" '
    '-m evaluator run "my digits.yaml" --output "runs/one launch"'
)


@pytest.fixture
def machines() -> Iterator[tuple[Machine, Machine]]:
    """Two of them."""
    if (why := unavailable()) is not None:
        pytest.skip(f"NO NETWORK NAMESPACES HERE, AND SO NO TEST OF TWO MACHINES: {why}")
    with two_machines() as pair:
        yield pair


def committed(run: Path) -> int:
    """Shards that are there."""
    return len(list((run / "shards").glob("*/commit.json")))


def assert_as_undisturbed(run: Path, undisturbed: Path, folder: Path) -> None:
    """Complete, with the bytes and numbers of a single process."""
    state = call_in(folder, "status", str(run), "--verify")
    assert state.returncode == 0, state.stdout
    assert bytes_of(run) == bytes_of(undisturbed)
    assert_same_numbers(run, undisturbed)


def hosts(run: Path) -> set[str]:
    """Host names of the launches, as they recorded themselves."""
    records = [json.loads(p.read_text()) for p in (run / "launches").iterdir()]
    return {record["worker"].rpartition(":")[0] for record in records}


def finish(process: subprocess.Popen[str]) -> str:
    """What it said; it ended well."""
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    return said


def test_one_launch_over_two_machines(
    machines: tuple[Machine, Machine], folder: Path, undisturbed: Path
) -> None:
    settings = str(ROOT / "launch" / "accelerate" / "machines.yaml")
    address = machines[0].address
    started = [
        machine.start(LAUNCH, settings, address, str(rank), folder=folder)
        for rank, machine in enumerate(machines)
    ]
    for process in started:
        finish(process)
    run = folder / "runs" / "one launch"
    assert_as_undisturbed(run, undisturbed, folder)
    (launch,) = [json.loads(p.read_text()) for p in (run / "launches").iterdir()]
    assert launch["world_size"] == 2
    assert hosts(run) == {machines[0].name}


def test_the_shard_of_a_machine_that_is_lost_is_anothers_when_its_lease_lapses(
    machines: tuple[Machine, Machine], folder: Path, undisturbed: Path
) -> None:
    """Process ids tell nothing of another machine's workers: only the lease does."""
    run = folder / "runs" / "lost machine"
    leases = ("runtime.lease_seconds=5", "runtime.startup_seconds=60")
    arguments = ["--output", str(run)] + [x for lease in leases for x in ("--set", lease)]
    lost, other = machines
    held: list[str] = []
    for _ in range(4):  # it may be lost between two shards, when it holds none: then once more
        before = committed(run)
        worker = lost.start(WORKER, *arguments, folder=folder)
        until("a shard is committed", lambda before=before: committed(run) > before)
        until("another is in work", lambda: '"held"' in newest_claim(run))
        lost.lose()
        assert worker.returncode != 0
        held = [claim for claim in claims(run) if '"held"' in claim]
        if held:
            break
    # The shard in work, and the one before it where that was still being committed.
    assert 1 <= len(held) <= 2
    assert all(lost.name in claim for claim in held)
    assert committed(run) < NUM_SHARDS
    finish(other.start(WORKER, *arguments, folder=folder))
    assert_as_undisturbed(run, undisturbed, folder)
    assert hosts(run) == {lost.name, other.name}


def test_a_machine_that_is_cut_off_works_on(
    machines: tuple[Machine, Machine], folder: Path, undisturbed: Path
) -> None:
    """Workers meet on the file system alone."""
    run = folder / "runs" / "cut off"
    first, second = machines
    started = [m.start(WORKER, "--output", str(run), folder=folder) for m in machines]
    until("a shard is committed", lambda: committed(run))
    first.cut_off()
    second.cut_off()
    for process in started:
        finish(process)
    assert_as_undisturbed(run, undisturbed, folder)
    assert hosts(run) == {first.name, second.name}


def claims(run: Path) -> list[str]:
    """What the claim files of shards say, the oldest first."""
    files = [p for p in (run / "claims").iterdir() if not p.name.startswith(".")]
    return [p.read_text() for p in sorted(files, key=lambda p: p.stat().st_mtime)]


def newest_claim(run: Path) -> str:
    """What the claim file says that was written last."""
    return (claims(run) or [""])[-1]
