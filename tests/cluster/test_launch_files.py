"""The real launch files on a real SLURM: whatever happens, the run of a single process comes out."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cluster.conftest import Site, Submitted
from tests.cluster.slurm import Job
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


def test_an_array_of_independent_workers_and_then_the_numbers(
    site: Site, undisturbed: Path
) -> None:
    submitted = site.submit("--tasks", "3", run="runs of mine/array")
    workers = ended(submitted, submitted.workers)
    assert len(workers) == 3
    assert len({worker.node for worker in workers}) > 1
    (numbers,) = ended(submitted, submitted.numbers)
    assert numbers.began >= max(worker.finished for worker in workers)
    assert_as_undisturbed(submitted, undisturbed, site)
    assert (submitted.run / "report" / "index.html").is_file()
    assert "fd_digits" in submitted.logs
    launches = [json.loads(p.read_text()) for p in (submitted.run / "launches").iterdir()]
    assert [launch["world_size"] for launch in launches] == [1, 1, 1]
    timings = [pq.read_table(p) for p in submitted.run.glob("shards/*/timings.parquet")]
    assert {device for t in timings for device in t.column("device").to_pylist()} == {"cpu"}
