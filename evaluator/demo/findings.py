"""What the attention of the digits model looks like, word by word, as measured in a run.

`python -m evaluator.demo.findings RUN` reads the heat maps and images that a run kept, and says
for each kind of word how much more it attends to the stroke than to the ground.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from evaluator.data import decode_image, read_image_tar, sample_name
from evaluator.demo.digits import RGB
from evaluator.store.rundir import RunDirectory

ROLES = ("a", "colour", "digit", "on", "a (second)", "ground colour", "background")
"""The words of a caption in order: "a red seven on a blue background"."""


class Finding(NamedTuple):
    """One kind of word over many samples."""

    role: str
    stroke_ratio: float
    """Geometric mean of (mean attention on the stroke) / (mean attention on the ground)."""
    low: float
    high: float
    """95 % interval over prompts."""
    num_prompts: int


def stroke_mask(image: np.ndarray, colour: str, ground: str) -> np.ndarray:
    """Which pixels of a (3, H, W) uint8 image are nearer to the stroke's colour => (H, W) bool."""
    pixels = image.astype(np.float64)
    to_stroke, to_ground = (
        np.square(pixels - np.asarray(RGB[name], np.float64)[:, None, None]).sum(0)
        for name in (colour, ground)
    )
    nearer: np.ndarray = to_stroke < to_ground
    return nearer


def ratios(run: RunDirectory) -> Iterator[tuple[str, str, float]]:
    """(role, key, log ratio) of every heat map that the run kept, all steps together."""
    for shard in run.committed():
        path = run.shard_path(shard) / "heatmaps.parquet"
        if not path.exists():
            continue
        rows = run.read(shard, "heatmaps.parquet", kind="heatmaps").to_pylist()
        rows = [row for row in rows if row["step"] == -1 and 0 <= row["word"] < len(ROLES)]
        if not rows:
            continue
        samples = run.read(shard, "samples.parquet", kind="samples").to_pylist()
        captions = {(row["key"], row["image_index"]): row["prompt"] for row in samples}
        images = {m.key: m.data for m in read_image_tar(run.shard_path(shard) / "images.tar")}
        for row in rows:
            words = captions[row["key"], row["image_index"]].split()
            image = decode_image(images[sample_name(row["key"], row["image_index"])]).numpy()
            mask = stroke_mask(image, words[1], words[5])
            height, width = row["height"], row["width"]
            enlarge = mask.shape[0] // height
            values = np.asarray(row["map"]).reshape(height, width)
            values = values.repeat(enlarge, 0).repeat(enlarge, 1)
            if 0 < mask.mean() < 1:
                ratio = values[mask].mean() / values[~mask].mean()
                yield ROLES[row["word"]], row["key"], float(np.log(ratio))


def findings(run: RunDirectory) -> list[Finding]:
    """Each kind of word, with an interval clustered by prompt."""
    by_role: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for role, key, value in ratios(run):
        by_role[role][key].append(value)
    found = []
    for role in ROLES:
        means = np.array([np.mean(values) for values in by_role[role].values()])
        if len(means) < 2:
            continue
        half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
        centre = means.mean()
        low, high = np.exp(centre - half), np.exp(centre + half)
        found.append(Finding(role, float(np.exp(centre)), float(low), float(high), len(means)))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m evaluator.demo.findings", description=__doc__)
    parser.add_argument("run", type=Path)
    run = RunDirectory.open(parser.parse_args().run)
    print(f"{'word':14} {'stroke / ground':>16} {'95 % interval':>18} {'prompts':>8}")
    for finding in findings(run):
        interval = f"{finding.low:.2f} to {finding.high:.2f}"
        print(
            f"{finding.role:14} {finding.stroke_ratio:16.2f} {interval:>18} {finding.num_prompts:8}"
        )


if __name__ == "__main__":
    main()
