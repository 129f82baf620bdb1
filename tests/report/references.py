"""A reference of coloured squares, and a run whose samples are said to be nearest to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from evaluator.data import PackOptions, pack
from evaluator.store.rundir import RunDirectory
from tests.report.conftest import Recipe, build

METRIC = "memorized_fraction_digits"


def colour_of(number: int) -> tuple[int, int, int]:
    return (10 * number, 255 - 10 * number, 100)


def squares(folder: Path, num: int = 20, side: int = 16) -> Path:
    """Images `r0.png`, `r1.png`, …, each of a colour of its own."""
    folder.mkdir(parents=True)
    for i in range(num):
        Image.new("RGB", (side, side), colour_of(i)).save(folder / f"r{i}.png")
    return folder


def packed(folder: Path, **how: Any) -> Path:
    """The same as a pack."""
    pack(squares(folder / "images", **how), folder / "pack", options=PackOptions())
    return folder / "pack"


def with_nearest(path: Path, place: Mapping[str, Any] | None, **recipe: Any) -> RunDirectory:
    """A run whose sample i, of every second, is nearest to `r<i>` of the reference at `place`."""
    run = build(path, Recipe(probes=False, scores=True, **recipe))
    table = run.path / "metrics" / "memorization.parquet"
    table.rename(table.with_name(f"{METRIC}.parquet"))
    result = {
        "name": METRIC, "value": 0.5, "n": 10, "n_expected": 10, "higher_is_better": False,
        "extractor": "digits", "fingerprint": "bfa3bcfe" + "0" * 56,
        "reference": {"name": "training", "n": 20}, "warnings": [], "details": {},
    }  # fmt: skip
    run.write("metrics.json", json.dumps({"format": 1, "metrics": [result]}).encode())
    if place is not None:
        whole = {"run": None, "moments": None, "pack": None, "fingerprints": {}, **place}
        run.write("asked.json", json.dumps({"references": {"training": whole}}).encode())
    return run
