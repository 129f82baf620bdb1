"""Whether peak memory grows with the number of samples: the same run at two sizes.

    python -m tests.benchmarks.memory [--samples 200 2000]

Images that exist already go through the run, so that thousands of samples take seconds; features
of 64 numbers are all that a metric needs at once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

CHILD = """
import json, resource, sys
from evaluator.cli import main
try:
    main(["run", sys.argv[1], "--output", sys.argv[2]])
except SystemExit:
    pass
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""


def peak_megabytes(images: Path, samples: int, folder: Path) -> float:
    """Peak resident memory of a run over the first `samples` images."""
    config = {
        "name": "memory",
        "model": {"kind": "images"},
        "prompts": {"source": str(images), "limit": samples},
        "references": {"real": {"source": "package://evaluator/demo/data/test.parquet"}},
        "features": ["digits"],
        "metrics": ["fd_digits"],
        "runtime": {"threads": 1, "batch_size": 16, "shard_size": 64, "cache": str(folder / "c")},
    }
    path = folder / f"{samples}.yaml"
    path.write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(folder / f"run{samples}")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs=2, default=(200, 2000))
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for i in range(max(arguments.samples)):
            pixels = generator.integers(0, 256, (128, 128, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{i:06d}.png")
        for samples in arguments.samples:
            peak = peak_megabytes(folder / "images", samples, folder)
            print(f"{samples} samples of 128 x 128: peak {peak:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
