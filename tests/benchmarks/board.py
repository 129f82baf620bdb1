"""A leaderboard of many runs: seconds and peak memory.

    python -m tests.benchmarks.board [--runs 200] [--samples 30000] [--folder FOLDER]

Makes run directories as `run` leaves them (plan, settings, numbers, scores of single samples of
three means, intervals of six sets), then times `evaluator leaderboard` on them in a process of its
own, the files it writes included. Runs that lie in the folder already are taken as they are. The
goal is 30 s and 2 GB for 200 runs of 30,000 samples.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.leaderboard.synthetic import MeanNumber, SetNumber, make_run

SETS = ("fid", "kid", "cmmd", "vendi_inception", "fd_dinov2", "kd_dinov2")
MEANS = ("clip_score", "hps_score", "aesthetic_score")

CHILD = """
import json, resource, sys, time
wall, cpu = time.perf_counter(), time.process_time()
from evaluator.cli import main
try:
    main(["leaderboard", sys.argv[1], "--output", sys.argv[2]])
except SystemExit as left:
    assert not left.code, left.code
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"wall": wall, "cpu": cpu, "peak_gib": peak}), file=sys.stderr)
"""


def make_runs(folder: Path, runs: int, samples: int) -> None:
    """Models whose quality differs a little, on prompts that differ much."""
    hardness = np.random.default_rng(0).normal(size=samples)
    for i in range(runs):
        path = folder / f"model-{i:03d}"
        if path.exists():
            continue
        generator = np.random.default_rng(1 + i)
        quality = generator.normal(0.0, 0.02)
        numbers: list[SetNumber | MeanNumber] = [
            SetNumber(name, 10.0 - quality * 20 + generator.normal(0.0, 0.1), reach=0.2)
            for name in SETS
        ]
        for name in MEANS:
            scores = 30.0 + hardness + quality + 0.5 * generator.normal(size=samples)
            numbers.append(MeanNumber(name, scores))
        make_run(path, numbers, num_prompts=samples, generation={"seed": i})


def measure(folder: Path) -> dict[str, float]:
    """One process that reads, ranks, writes and prints."""
    with tempfile.TemporaryDirectory() as output:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(folder), output],
            capture_output=True, text=True, check=False, env=os.environ,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stderr)
        files = {p.name: p.stat().st_size for p in sorted(Path(output).iterdir()) if p.is_file()}
    print(done.stdout[:600])
    print("bytes:", ", ".join(f"{name} {size:,}" for name, size in files.items()))
    found: dict[str, float] = json.loads(done.stderr.strip().splitlines()[-1])
    return found


def main() -> None:
    """Make what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--samples", type=int, default=30_000)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        make_runs(folder, given.runs, given.samples)
        found = measure(folder)
    print(
        f"{given.runs} runs of {given.samples:,} samples: {found['wall']:.1f} s, "
        f"{found['cpu']:.1f} s of CPU, peak {found['peak_gib']:.2f} GiB"
    )


if __name__ == "__main__":
    main()
