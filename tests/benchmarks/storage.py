"""Bytes on disk a sample, of each table of a run.

python -m tests.benchmarks.storage RUN
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from evaluator.store.rundir import RunDirectory


def bytes_by_file(run: RunDirectory) -> Counter[str]:
    """File name → bytes in all committed shards together."""
    total: Counter[str] = Counter()
    for shard in run.committed():
        for path in run.shard_path(shard).iterdir():
            total[path.name] += path.stat().st_size
    return total


def main() -> None:
    """Print one line for each table, the largest first."""
    run = RunDirectory.open(Path(sys.argv[1]))
    starts = run.shard_starts
    samples = sum(starts[shard + 1] - starts[shard] for shard in run.committed())
    found = bytes_by_file(run)
    for name, size in found.most_common():
        print(f"{name:40} {size / samples:12,.1f} B")
    print(f"{'all':40} {found.total() / samples:12,.1f} B")


if __name__ == "__main__":
    main()
