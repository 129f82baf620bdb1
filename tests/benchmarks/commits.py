"""What claims and commits take: latency of one commit, claims a second alone and contended.

    python -m tests.benchmarks.commits [--run RUN] [--shards 100] [--claims 2000] [--contenders 4]

With `--run` the files of that run's first shard are what is committed: written aside, checksummed,
synchronized to disk and renamed, as a shard of that size is. Without it a shard has 20 rows.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from evaluator.store.claims import Claims, Worker
from evaluator.store.rundir import RunDirectory
from evaluator.store.schemas import read_schema, write_table
from tests.runner.sleeper import create_run

ROWS = 20


def committed_rows(folder: Path) -> dict[str, int | None]:
    """File → its rows, of the files that a shard of another run was committed with."""
    import json

    rows: dict[str, int | None] = json.loads((folder / "commit.json").read_bytes())["rows"]
    return rows


def commit_latencies(folder: Path, shards: int, source: Path | None) -> tuple[list[float], int]:
    """Seconds of each commit of a filled folder, and the bytes of one."""
    run = create_run(folder / "commits", shards * ROWS, ROWS)
    seconds, size = [], 0
    for index in range(shards):
        staged = run.stage(f"{index:05d}.0")
        if source is None:
            table = run.plan.slice(index * ROWS, ROWS)
            write_table(table, staged / "samples.parquet", kind="samples")
            rows: dict[str, int | None] = {"samples.parquet": ROWS}
        else:
            rows = committed_rows(source)
            for name in rows:
                shutil.copyfile(source / name, staged / name)
        size = sum(path.stat().st_size for path in staged.iterdir())
        start = time.perf_counter()
        assert run.publish_shard(index, staged, rows)
        seconds.append(time.perf_counter() - start)
    return seconds, size


def claim_all(run: RunDirectory, claims: int, rank: int) -> int:
    """Claim whatever nobody else has; returns how many this process won."""
    leases = Claims(run.claims_folder, Worker.current(rank), lease_seconds=600)
    return sum(leases.take(f"{task:05d}") is not None for task in range(claims))


def claims_a_second(folder: Path, claims: int, contenders: int) -> float:
    """Tasks claimed a second by processes that all try every one, and hold what they have won."""
    run = create_run(folder / f"claims-{contenders}", 1, 1)
    code = (
        "import sys; from pathlib import Path; from tests.benchmarks.commits import claim_all\n"
        "from evaluator.store.rundir import RunDirectory\n"
        "run = RunDirectory(Path(sys.argv[1])); print('ready', flush=True); sys.stdin.readline()\n"
        "print(claim_all(run, int(sys.argv[2]), int(sys.argv[3])), flush=True)\n"
        "sys.stdin.readline()\n"  # a claim of a process that is gone is free
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(run.path), str(claims), str(rank)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(contenders)
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    start = time.perf_counter()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    won = sum(int(process.stdout.readline()) for process in started if process.stdout)
    took = time.perf_counter() - start
    for process in started:
        process.communicate("done\n")
    assert won == claims, "every task has one winner"
    return won / took


def main() -> None:
    """Print one line for each thing that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=None)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--claims", type=int, default=2000)
    parser.add_argument("--contenders", type=int, nargs="+", default=[1, 2, 16])
    arguments = parser.parse_args()
    source = None if arguments.run is None else RunDirectory.open(arguments.run).shard_path(0)
    if source is not None:
        assert read_schema(source / "samples.parquet") is not None
    with tempfile.TemporaryDirectory() as folder:
        seconds, size = commit_latencies(Path(folder), arguments.shards, source)
        cuts = statistics.quantiles(seconds, n=20)
        print(
            f"commit of {size / 1e6:.2f} MB: median {1e3 * statistics.median(seconds):.1f} ms, "
            f"95 % below {1e3 * cuts[-1]:.1f} ms",
            flush=True,
        )
        for contenders in arguments.contenders:
            rate = claims_a_second(Path(folder), arguments.claims, contenders)
            print(f"{contenders:3} contenders: {rate:,.0f} claims a second", flush=True)


if __name__ == "__main__":
    main()
