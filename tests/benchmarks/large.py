"""Every metric of sets at leaderboard size: seconds, CPU seconds and peak memory.

    python -m tests.benchmarks.large [--samples 50000] [--dim 2048] [--metrics fd prdc …]

Each metric gets a process of its own, which makes both sets, hands them over in batches of 1,000
as the aggregation does, and computes with the metric's defaults, intervals included. The peak is
the process's, so it holds the interpreter, torch, and the features that the metric keeps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

METRICS = (
    "fd", "fd_infinity", "mifd", "kd", "cmmd", "prdc", "realism", "authpct",
    "memorized_fraction", "rp_score", "vendi", "diversity", "is",
)  # fmt: skip
HELD_OUT = ("fls", "ct")

CHILD = """
import json, resource, sys, time
import numpy as np, torch
from evaluator.metrics.catalog import resolve
from evaluator.metrics.families import FAMILIES
name, samples, dim, threads = sys.argv[1], *map(int, sys.argv[2:5])
torch.set_num_threads(threads)
plan = resolve(name, extractor="x")
metric = plan.build(dim)
scales = np.random.default_rng(0).gamma(1.0, 1.0, size=dim).astype(np.float32) + 0.05
marks = [{}]
marks += [{"real": True}] if plan.reference else []
marks += [{"held_out": True}] if plan.held_out else []
for side, mark in enumerate(marks):
    generator = np.random.default_rng(1 + side)
    for start in range(0, samples, 1000):
        rows = min(1000, samples - start)
        values = generator.standard_normal((rows, dim), dtype=np.float32) * scales + 0.4
        positions = torch.arange(start, start + rows)
        prompts = positions // 4 if name == "diversity" else positions
        metric.update(torch.from_numpy(values), positions, prompts, **mark)
wall, cpu = time.perf_counter(), time.process_time()
results = metric.compute()
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak,
    "values": {r.name: r.value for r in results}, "n": results[0].n,
    "interval": results[0].interval is not None}))
"""


def measure(name: str, samples: int, dim: int, threads: int) -> dict[str, object]:
    """What one process says of one metric."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, name, str(samples), str(dim), str(threads)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    record: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return record


def main() -> None:
    """Print one line of a Markdown table for each metric."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--metrics", nargs="+", default=[*METRICS, *HELD_OUT])
    arguments = parser.parse_args()
    print(f"{arguments.samples} samples a side, {arguments.dim} features\n")
    print("| metric | seconds | CPU seconds | peak GiB | values |\n|---|--:|--:|--:|---|")
    for name in arguments.metrics:
        found = measure(name, arguments.samples, arguments.dim, arguments.threads)
        if "error" in found:
            print(f"| {name} | | | | {found['error']} |", flush=True)
            continue
        values = ", ".join(f"{k} {v}" for k, v in dict(found["values"]).items())  # type: ignore[call-overload]
        print(
            f"| {name} | {found['wall']:.0f} | {found['cpu']:.0f} | {found['peak']:.2f} "
            f"| {values} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
