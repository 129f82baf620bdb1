"""How long `evaluator --help` takes, and a finished run: medians of whole commands.

python -m tests.benchmarks.startup [RUN_CONFIG RUN_DIRECTORY]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(arguments: list[str], repeats: int = 7) -> float:
    """Median wall time of a command."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "evaluator", *arguments], capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print the medians."""
    print(f"evaluator --help: {seconds(['--help']):.2f} s")
    if len(sys.argv) == 3:
        config, run = sys.argv[1:]
        again = seconds(["run", config, "--output", run])
        print(f"evaluator run, finished already: {again:.2f} s")


if __name__ == "__main__":
    main()
