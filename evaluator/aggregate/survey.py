"""What the sample tables of a run say before any metric: counts, errors, sizes of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluator.aggregate.summary import MAX_ERROR_LINES
from evaluator.store.rundir import RunDirectory

_COLUMNS = ["key", "image_index", "truncated", "error", "height", "width", "flaw"]
NOTABLE_RATIO = 1.5
"""Typical sizes further apart than this are worth a warning."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Counts over some shards."""

    committed: int = 0
    errors: int = 0
    truncated: int = 0
    black: int = 0
    non_finite: int = 0
    lines: tuple[str, ...] = ()
    """The first errors, with the sample's name."""
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    """(height, width) in pixels → how many images have it."""

    def merge(self, other: Survey) -> Survey:
        """Both together, in this order."""
        sizes = dict(self.sizes)
        for size, count in other.sizes.items():
            sizes[size] = sizes.get(size, 0) + count
        return Survey(
            self.committed + other.committed,
            self.errors + other.errors,
            self.truncated + other.truncated,
            self.black + other.black,
            self.non_finite + other.non_finite,
            (*self.lines, *other.lines)[:MAX_ERROR_LINES],
            sizes,
        )

    @property
    def typical_size(self) -> tuple[int, int] | None:
        """The median height and the median width; None without images."""
        if not self.sizes:
            return None
        sides, counts = np.array(list(self.sizes)), list(self.sizes.values())
        heights, widths = (np.repeat(sides[:, i], counts) for i in (0, 1))
        return int(np.median(heights)), int(np.median(widths))


def survey(run: RunDirectory, shards: Sequence[int]) -> Survey:
    """Read the sample tables of some shards."""
    total = Survey()
    for shard in shards:
        table = run.read(shard, "samples.parquet", kind="samples", columns=_COLUMNS)
        failed = table.filter(table.column("error").is_valid())
        lines = [
            f"{row['key']}[{row['image_index']}]: {row['error']}"
            for row in failed.slice(0, MAX_ERROR_LINES).to_pylist()
        ]
        pairs = table.group_by(["height", "width"]).aggregate([([], "count_all")]).to_pylist()
        sizes = {
            (pair["height"], pair["width"]): pair["count_all"]
            for pair in pairs
            if pair["height"] is not None
        }
        truncated = sum(bool(cut) for cut in table.column("truncated").to_pylist())
        flaws = table.column("flaw").to_pylist()
        part = Survey(
            table.num_rows, failed.num_rows, truncated, flaws.count("black"),
            flaws.count("non_finite"), tuple(lines), sizes,
        )  # fmt: skip
        total = total.merge(part)
    return total


def flaw_warnings(seen: Survey) -> list[str]:
    """Sentences about images that a model gave and nobody wanted."""
    said = []
    if seen.non_finite:
        said.append(
            f"{seen.non_finite} of {seen.committed} images were not finite (NaN or infinity) and "
            "are left out: try model.dtype: float32 or bfloat16"
        )
    if seen.black:
        said.append(
            f"{seen.black} of {seen.committed} images are entirely black (a safety checker, or "
            "numbers that overflowed): they are part of this number"
        )
    return said


def size_warning(generated: Survey, reference: Survey) -> str | None:
    """A sentence where generated and reference images differ much in size."""
    a, b = generated.typical_size, reference.typical_size
    if a is None or b is None:
        return None
    ratio = ((a[0] * a[1]) / (b[0] * b[1])) ** 0.5
    if 1.0 / NOTABLE_RATIO <= ratio <= NOTABLE_RATIO:
        return None
    return (
        f"generated images are {a[0]}×{a[1]} pixels, reference images {b[0]}×{b[1]} (medians): "
        "the resize is part of this number"
    )
