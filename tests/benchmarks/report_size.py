"""What a report costs: seconds and memory to write it, bytes on disk, and when its gallery answers.

    python -m tests.benchmarks.report_size [--samples 30000] [--side 512] [--run RUN] [--browser]

Without --run, a run is made up first: tables and kept images of every sample, written as a run
writes them, with a few pictures over and over. `--browser` opens the page in headless Chromium
(playwright, and `chromium` on the path) and waits for the gallery, a filter and a sorting.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from evaluator.data.kept import sample_name, write_image_tar
from evaluator.report import write_report
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory

SHARD, STEPS, PICTURES = 256, 10, 24
WORDS = ("red", "green", "old", "small", "wooden", "shiny", "dog", "house", "boat", "lamp", "river",
         "table", "horse", "street", "cloud", "bicycle", "at night", "in snow", "by the sea",
         "in a museum", "drawn in ink", "seen from above")  # fmt: skip
PLACES = ("Africa", "America", "Asia", "Europe", "Oceania")


def synthetic(path: Path, num: int, side: int) -> RunDirectory:
    """A run with images, scores of two extractors and one metric, latents, and timings."""
    names = [f"prompt-{i:06d}" for i in range(num)]
    plan = pa.table(
        {"shard": np.arange(num) // SHARD, "key": names, "image_index": np.zeros(num, np.int32),
         "seed": np.arange(num) * 7919 % 2**32, "content": ["0" * 64] * num},
        schema=schemas.PLAN,
    )  # fmt: skip
    run = RunDirectory.create(path, {"config.yaml": b"name: synthetic\n"}, plan)
    generator = np.random.default_rng(0)
    pictures = [_picture(generator, side) for _ in range(PICTURES)]
    for shard in range(run.num_shards):
        places = range(run.shard_starts[shard], run.shard_starts[shard + 1])
        _commit(run, shard, places, pictures, generator, side)
    distances = {"distance": generator.random(num), "nearest_key": names[::-1],
                 "nearest_image_index": np.zeros(num, np.int32), "nearest_name": names[::-1]}  # fmt: skip
    table = plan.select(["key", "image_index"])
    for name, values in distances.items():
        table = table.append_column(name, pa.array(values))
    run.write_metric_table("memorization", table)
    record = {"format": 1, "complete": True, "samples": {"committed": num}, "metrics": []}
    run.write("metrics.json", json.dumps(record).encode())
    return run


def _picture(generator: np.random.Generator, side: int) -> bytes:
    coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    smooth = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    smooth.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _commit(
    run: RunDirectory,
    shard: int,
    places: range,
    pictures: list[bytes],
    generator: np.random.Generator,
    side: int,
) -> None:
    num = len(places)
    keys = [f"prompt-{i:06d}" for i in places]
    identity = {"key": keys, "image_index": np.zeros(num, np.int32)}
    prompts = ["a " + " ".join(generator.choice(WORDS, 7)) for _ in places]
    samples = pa.Table.from_pylist(
        [{"key": key, "image_index": 0, "seed": i, "prompt": prompt, "truncated": i % 97 == 0,
          "tags": {"region": PLACES[i % 5], "category": WORDS[i % 20]}, "height": side,
          "width": side, "error": "refused" if i % 1999 == 5 else None}
         for i, key, prompt in zip(places, keys, prompts, strict=True)],
        schema=schemas.SAMPLES,
    )  # fmt: skip
    steps = np.tile(np.arange(STEPS, dtype=np.int16), num)
    latents = {
        name: generator.random(num * STEPS).astype(np.float32)
        for name in ("norm", "std", "guidance_norm", "eps_std")
    }
    repeated = {"key": np.repeat(keys, STEPS), "image_index": np.zeros(num * STEPS, np.int32)}
    timings = [{"key": keys[first], "image_index": 0, "stage": stage, "seconds": generator.random(),
                "samples": min(8, num - first), "worker": f"node{shard % 4}:1", "rank": 0,
                "device": "cuda:0", "threads": 1, "batch_size": 8, "first_of_worker": False}
               for stage in ("embed:clip", "embed:quality", "generate", "observe")
               for first in range(0, num, 8)]  # fmt: skip
    tables = {
        "samples.parquet": ("samples", samples),
        "latents.parquet": ("latents", pa.table({**repeated, "step": steps, **latents})),
        "timings.parquet": ("timings", pa.Table.from_pylist(timings, schema=schemas.TIMINGS)),
    }
    for extractor in ("clip", "quality"):
        scores = {"score": generator.normal(0.3, 0.05, num), "other": generator.random(num)}
        table = ("features", pa.table({**identity, **scores}))
        tables[f"features-{extractor}-0123abcd.parquet"] = table
    staged = run.stage(f"{shard:05d}.0")
    for name, (kind, table) in tables.items():
        schemas.write_table(table, staged / name, kind=kind)
    images = ((sample_name(k, 0), "png", pictures[i % PICTURES]) for i, k in enumerate(keys))
    write_image_tar(staged / "images.tar", images)
    rows = {name: table.num_rows for name, (_, table) in tables.items()}
    assert run.publish_shard(shard, staged, {**rows, "images.tar": None})


def in_browser(page: Path) -> dict[str, float]:
    """Seconds until the gallery answers, and its memory in MiB."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page()
        start = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="commit")
        tab.wait_for_selector("#gallery[data-ready]")
        found = {"gallery": time.perf_counter() - start}
        # a change is handled before `evaluate` returns
        for name, script in {
            "one filter": "document.getElementById('filter').value = 'red boat';"
            "document.getElementById('filter-only').dispatchEvent(new Event('change'))",
            "one sorting": "document.getElementById('sort').selectedIndex = 1;"
            "document.getElementById('sort').dispatchEvent(new Event('change'))",
        }.items():
            start = time.perf_counter()
            tab.evaluate(script)
            found[name] = time.perf_counter() - start
        found["heap MiB"] = tab.evaluate("performance.memory.usedJSHeapSize") / 2**20
        browser.close()
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=30_000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--browser", action="store_true")
    parser.add_argument("--single-file", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = (
            RunDirectory.open(arguments.run)
            if arguments.run
            else synthetic(Path(folder) / "run", arguments.samples, arguments.side)
        )
        start = time.perf_counter()
        page = write_report(run, Path(folder) / "report", single_file=arguments.single_file)
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(f"{run.num_samples:,} samples: written in {seconds:.1f} s, peak {peak:.0f} MiB")
        print(f"index.html {page.stat().st_size / 1e6:.2f} MB, in all {size / 1e6:.1f} MB")
        if arguments.browser:
            for name, value in in_browser(page).items():
                print(f"{name}: {value:.2f}")


if __name__ == "__main__":
    main()
