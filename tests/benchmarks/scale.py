"""What a large run costs beside its images: the plan, a worker's start, `status`, a finished run.

    python -m tests.benchmarks.scale [--prompts 1000000] [--images 4] [--shards 20000]

Each line gives wall-clock and CPU seconds (other work on the machine makes them differ) and the
peak memory of the process so far. The prompts are packed first, which is not timed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluator.config import RunConfig, parse_record
from evaluator.data import Pack
from evaluator.runner import identity
from evaluator.runner.finished import finished_summary, request_of
from evaluator.runner.plan import make_plan
from evaluator.runner.status import read_status
from evaluator.runner.surroundings import cache_folder, open_pack
from evaluator.runner.trust import Trust
from evaluator.store.claims import Claims, Worker
from evaluator.store.quarantine import set_apart_incomplete
from evaluator.store.rundir import RunDirectory


@contextmanager
def timed(what: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:48} {wall:7.2f} s wall {cpu:7.2f} s CPU {peak:6.2f} GiB", flush=True)


def config_of(folder: Path, prompts: int, images: int, shards: int) -> RunConfig:
    source = folder / "prompts.txt"
    with source.open("w") as file:
        file.writelines(f"a photo of thing number {i} on a table\n" for i in range(prompts))
    record = {
        "name": "scale",
        "model": {"kind": "custom", "target": "tests.runner.custom_models:Noise"},
        "prompts": {"source": str(source)},
        "generation": {"images_per_prompt": images},
        "runtime": {"shard_size": prompts * images // shards, "cache": str(folder / "cache")},
    }
    return parse_record(record, (), where="scale")


def opened(config: RunConfig) -> Pack:
    pack = open_pack(config.prompts, cache_folder(config), Trust())
    assert pack.fingerprint
    return pack


def commit_all(run: RunDirectory, shards: range) -> None:
    """Shards as they are on disk, without their tables, and the claims of who made them."""
    claims = Claims(run.claims_folder, Worker.current(), lease_seconds=600)
    record: dict[str, Any] = {
        "format": 1,
        "rows": dict.fromkeys(("samples.parquet", "timings.parquet"), 200),
    }
    record["sha256"] = {"samples.parquet": "0" * 64}
    content = json.dumps(record, indent=1).encode()
    for index in shards:
        run.shard_path(index).mkdir()
        (run.shard_path(index) / "commit.json").write_bytes(content)
        for name in record["rows"]:
            (run.shard_path(index) / name).touch()
        claim = claims.take(f"{index:05d}")
        assert claim is not None
        claims.finish(claim, done=200)


def main() -> None:
    """Print one line for each thing that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--shards", type=int, default=20_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        config = config_of(Path(folder), arguments.prompts, arguments.images, arguments.shards)
        opened(config)
        with timed("open the prompts' pack again"):
            pack = opened(config)
        with timed("make the plan"):
            plan = make_plan(config, pack.keys, pack.content_hashes())
        with timed("write the plan"):
            init = identity.init_files(config, pack.fingerprint, {})
            RunDirectory.create(path, init, plan)
        del plan
        with timed("a worker checks the plan and reads its shard"):
            run = RunDirectory.open(path)
            identity.require_same(run, config, pack.fingerprint)
            identity.require_same_plan(run, config, pack.keys)
            run.shard(run.num_shards // 2)
        read_as_a_worker(path)
        commit_all(run, range(run.num_shards // 2))
        with timed(f"status, half of {run.num_shards} shards there"):
            read_status(RunDirectory.open(path))
        commit_all(run, range(run.num_shards // 2, run.num_shards))
        with timed("status, all there"):
            assert read_status(RunDirectory.open(path)).complete
        write_numbers(run, config)
        with timed("looking for shards that lost a file"):
            assert not set_apart_incomplete(run)
        with timed("a finished run answers"):
            assert finished_summary(config, path, Trust()) is not None


WORKER = """
import sys
from pathlib import Path
import pyarrow.dataset
from evaluator.runner import identity
from evaluator.runner.plan import PromptsOf
from evaluator.runner.surroundings import cache_folder, open_pack
from evaluator.runner.trust import Trust
from evaluator.store.rundir import RunDirectory
from tests.benchmarks.scale import timed
run = RunDirectory.open(Path(sys.argv[1]))
config = identity.stored_config(run)
with timed("a worker of its own process opens the pack"):
    pack = open_pack(config.prompts, cache_folder(config), Trust())
with timed("  knows that it is the run's, and its plan"):
    identity.require_same(run, config, pack.fingerprint)
    identity.require_same_plan(run, config, pack.key_slices)
prompts = PromptsOf(pack, config.generation.images_per_prompt)
with timed("  reads the prompts of its first shard"):
    prompts(run.shard(run.num_shards // 2))
with timed("  and of a second one"):
    prompts(run.shard(run.num_shards // 3))
"""


def read_as_a_worker(path: Path) -> None:
    """What a worker takes of the prompts before it makes its first shard."""
    subprocess.run([sys.executable, "-c", WORKER, str(path)], check=True)


def write_numbers(run: RunDirectory, config: RunConfig) -> None:
    from evaluator.aggregate.asked import request_digest
    from evaluator.aggregate.summary import Counts, Summary

    counts = Counts(run.num_samples, run.num_samples, 0, 0)
    summary = Summary(counts, (), request=request_digest(request_of(config, Trust())))
    run.write("metrics.json", json.dumps(summary.record()).encode())


if __name__ == "__main__":
    main()
