"""Precision, recall, density and coverage against prdc and torch-fidelity on the same features.

    python -m tests.benchmarks.prdc_speed [--samples 10000] [--dim 2048] [--rounds 3] [--dtype float64]

What is timed is the call on two sets in memory, features and imports excluded; every call has a
process of its own, and the contenders take turns. CPU seconds are those of all threads; memory is
how far the call raised the process's peak. torch-fidelity gives precision and recall only. On
float32 features the peers multiply in float32 too, and may decide the rims of balls by its rounding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

OURS = "evaluator"
CONTENDERS = (OURS, "prdc", "torch-fidelity")

CHILD = """
import json, resource, sys, time
import numpy as np, torch
name, samples, dim, threads, dtype = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
torch.set_num_threads(threads)
generator = np.random.default_rng(0)
scales = generator.gamma(1.0, 1.0, size=dim) + 0.05
real, fake = (
    (generator.standard_normal((samples, dim)) * scales + 0.4 + shift).astype(dtype)
    for shift in (0.0, 0.02)
)
small = real[:64].copy(), fake[:64].copy()
if name == "evaluator":
    from evaluator.metrics import precision_recall_density_coverage
    def score(a, b):
        return list(precision_recall_density_coverage(a, b, k=5))
elif name == "prdc":
    from prdc import compute_prdc
    def score(a, b):
        found = compute_prdc(a, b, 5)
        return [float(found[key]) for key in ("precision", "recall", "density", "coverage")]
else:
    from torch_fidelity.metric_prc import prc_features_to_metric
    def score(a, b):
        found = prc_features_to_metric(
            torch.from_numpy(b), torch.from_numpy(a), prc_neighborhood=5,
            prc_batch_size=10_000, save_cpu_ram=False, verbose=False)
        return [found["precision"], found["recall"]]
import contextlib
with contextlib.redirect_stdout(sys.stderr):
    score(*small)
    # a peak from before, making the features, would hide that of the call
    open("/proc/self/clear_refs", "w").write("5")
    before = [int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line][0]
    wall, cpu = time.perf_counter(), time.process_time()
    values = score(real, fake)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = [int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line][0]
print(json.dumps({"wall": wall, "cpu": cpu, "memory": (after - before) / 1024, "values": values}))
"""


def measure(name: str, samples: int, dim: int, threads: int, dtype: str) -> dict[str, object]:
    """One call in a process of its own."""
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(variables, str(threads))}
    command = [sys.executable, "-c", CHILD, name, str(samples), str(dim), str(threads)]
    done = subprocess.run(
        [*command, dtype], capture_output=True, text=True, env=environment, check=True
    )
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a Markdown table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, os.cpu_count() or 1])
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    arguments = parser.parse_args()
    print(
        f"N = {arguments.samples} a side, d = {arguments.dim}, k = 5, {arguments.rounds} rounds\n"
    )
    print("| threads | | CPU s | × | wall s | extra peak MB | × |")
    print("|---|---|---|---|---|---|---|")
    for threads in arguments.threads:
        found: dict[str, list[dict[str, object]]] = {name: [] for name in CONTENDERS}
        for _ in range(arguments.rounds):
            for name in CONTENDERS:
                found[name].append(
                    measure(name, arguments.samples, arguments.dim, threads, arguments.dtype)
                )
        medians = {
            name: {
                key: statistics.median(run[key] for run in runs)
                for key in ("cpu", "wall", "memory")
            }  # type: ignore[type-var]
            for name, runs in found.items()
        }
        own = medians[OURS]
        for name, values in medians.items():
            print(
                f"| {threads} | {name} | {values['cpu']:.1f} | {values['cpu'] / own['cpu']:.1f} "
                f"| {values['wall']:.1f} | {values['memory']:.0f} "
                f"| {values['memory'] / max(own['memory'], 1.0):.1f} |",
                flush=True,
            )
        answers = {name: runs[0]["values"] for name, runs in found.items()}
        print(f"\n{answers}\n", file=sys.stderr)


if __name__ == "__main__":
    main()
