"""How much of the workers' time goes into images: claims, commits and waiting are the rest.

    python -m tests.benchmarks.scaling [--workers 1 4 16 64] [--shards 150] [--seconds 1]

Workers of the real claim loop and commit whose model only sleeps, so that many fit onto a few
cores; each has a process of its own. The efficiency is the time that the images alone would take,
shared among the workers by their speed, over the time that passed. `--slow 5` makes the first
worker so many times slower. A shard takes `--seconds`; what a shard costs beside its images is the
same for long ones, so that the loss at ten seconds is a tenth of that at one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.runner.sleeper import create_run

SAMPLES = 20
"""Samples a shard, in two batches."""


def efficiency(folder: Path, workers: int, shards: int, seconds: float, slow: float) -> float:
    """The share of the workers' time that went into images."""
    run = create_run(folder / f"run-{workers}", workers * shards * SAMPLES, SAMPLES).path
    begin = time.time() + 2.0 + 0.6 * workers
    started = []
    for rank in range(workers):
        image = seconds / SAMPLES * (slow if rank == 0 else 1.0)
        words = ["--per-shard", SAMPLES, "--batch", SAMPLES // 2, "--seconds", image]
        words += ["--samples", workers * shards * SAMPLES, "--rank", rank, "--workers", workers]
        words += ["--begin", begin, "--lease", 600]
        command = [sys.executable, "-m", "tests.runner.sleeper", str(run), *map(str, words)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    outputs = [json.loads(worker.communicate()[0].splitlines()[-1]) for worker in started]
    late = max(output["began"] for output in outputs) - begin
    if late > 0.5:
        print(f"  (a worker began {late:.1f} s late: the machine is busy)", flush=True)
    took = max(output["ended"] for output in outputs) - begin
    speed = workers - 1 + 1 / slow
    return workers * shards * seconds / speed / took


def main() -> None:
    """Print one line for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--shards", type=int, default=150, help="a worker")
    parser.add_argument("--seconds", type=float, default=1.0, help="a shard")
    parser.add_argument("--slow", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for workers in arguments.workers:
            share = efficiency(
                Path(folder), workers, arguments.shards, arguments.seconds, arguments.slow
            )
            print(
                f"{workers:3} workers, {arguments.shards} shards of {arguments.seconds:g} s each: "
                f"efficiency {share:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
