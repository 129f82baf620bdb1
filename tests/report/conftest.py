"""A small run on disk with every table that a report can show, made without any model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from evaluator.data.kept import sample_name, write_image_tar
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory

HOSTILE = '<script>document.title="owned"</script>'
COLOURS = ("red", "green", "blue", "yellow")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

CONFIG = b"""name: digits & friends
model:
  kind: diffusers
  id: some/model
  hub_token: hf_verysecret
generation:
  steps: 10
"""


@dataclass(frozen=True)
class Recipe:
    """What to put into a synthetic run."""

    num_samples: int = 20
    shard_size: int = 8
    missing_shards: tuple[int, ...] = ()
    side: int = 32
    images: bool = True
    probes: bool = True
    timings: bool = True
    older_timings: tuple[int, ...] = ()
    """Shards whose timings a version before 3 wrote: a row is a whole shard."""
    metrics: bool = True
    full: bool = False
    """Whether two samples of each shard were observed in full."""
    pairs: bool = False
    """Whether the attention probe also told of pairs, and which word each token is of."""
    says: tuple[str, ...] | None = None
    """What the checks said of the schedule."""
    scores: bool = False
    """Whether there are tags, scores of an extractor, and what a metric says of each sample."""
    collapsed: bool = False
    """Whether the latents lose their noise from step 4 on."""


def prompt(i: int) -> str:
    if i == 1:
        return f"{HOSTILE} a sly \x1b[31mred\x07 three & \u202efour"
    if i == 2:
        return '=cmd|"/c calc"!A1'
    return f"a {COLOURS[i % 4]} {WORDS[i % 10]} on a black background"


def picture(i: int, side: int) -> bytes:
    """A coloured disc whose place and size vary with `i`."""
    rows, columns = np.mgrid[:side, :side] / side
    disc = (rows - 0.3 - 0.02 * i) ** 2 + (columns - 0.7 + 0.02 * i) ** 2 < 0.04 + 0.003 * i
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[disc] = [(230, 60, 50), (60, 200, 90), (70, 110, 240), (240, 210, 60)][i % 4]
    pixels[~disc, 2] = (60 * rows[~disc]).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def has_error(i: int) -> bool:
    return i == 5


def score_of(i: int) -> float:
    """A score that is highest in the middle of the run."""
    return 0.5 - 0.01 * abs(i - 10.25)


def features_table(positions: range) -> pa.Table:
    rows = [
        {"key": f"k{i:04d}", "image_index": 0,
         "features": None if has_error(i) else [float(i), 1.0],
         "text_cosine": None if has_error(i) else score_of(i), "confident": i % 3 == 0}
        for i in positions
    ]  # fmt: skip
    scores = [("text_cosine", pa.float64()), ("confident", pa.bool_())]
    return pa.Table.from_pylist(rows, schema=schemas.features_schema({"features": 2}, scores))


def metric_table(num: int) -> pa.Table:
    """Half of the samples, with the names of their nearest images."""
    rows = [
        {"key": f"k{i:04d}", "image_index": 0, "distance": 1.0 / (i + 1), "nearest_key": f"r{i}",
         "nearest_image_index": 0, "nearest_name": "<b>real</b>.png" if i == 0 else None}
        for i in range(0, num, 2)
    ]  # fmt: skip
    return pa.Table.from_pylist(
        rows, schema=schemas.samplewise_schema({"distance": pa.float64()}, nearest=True)
    )


def samples_table(positions: range, *, tags: bool = False) -> pa.Table:
    rows = [
        {
            "key": f"k{i:04d}",
            "image_index": 0,
            "seed": 7 * i + 1,
            "prompt": prompt(i),
            "truncated": i % 9 == 3,
            "height": None if has_error(i) else 32,
            "width": None if has_error(i) else 32,
            "error": "the prompt is <empty>" if has_error(i) else None,
            "tags": {"colour": COLOURS[i % 4], "=tag": f"</script>{i % 2}"} if tags else None,
        }
        for i in positions
    ]
    return pa.Table.from_pylist(rows, schema=schemas.SAMPLES)


def tokens_of(i: int) -> list[str]:
    return prompt(i).split()[:9]


def attention_table(positions: range) -> pa.Table:
    rows = []
    rng = np.random.default_rng(positions.start)
    for i in positions:
        words = ["<|startoftext|>", *tokens_of(i), "<|endoftext|>"]
        for step in range(10):
            for layer, base in (("down-8x8", 0.2), ("mid-4x4", 0.1), ("up-8x8", 0.3)):
                for token, word in enumerate(words):
                    special = word.startswith("<|")
                    sharp = base + 0.04 * step * (len(word) > 2) + rng.normal(0, 0.02)
                    rows.append({
                        "key": f"k{i:04d}", "image_index": 0, "step": step,
                        "timestep": 900.0 - 90 * step, "log_snr": -5.0 + 1.2 * step,
                        "layer": layer, "token": token, "token_text": word,
                        "word": -1 if special else token - 1, "branch": "conditional",
                        "mass": 0.1 + rng.normal(0, 0.01), "top10_share": 0.2 + sharp / 2,
                        "sharpness": None if i == 3 and step == 0 else sharp,
                        "entropy": None if i == 3 and step == 0 else 1 - sharp,
                    })  # fmt: skip
    table = pa.Table.from_pylist(rows)
    for name in ("layer", "token_text", "branch"):
        at = table.column_names.index(name)
        table = table.set_column(at, name, table.column(name).dictionary_encode())
    return table


def tokens_table(positions: range) -> pa.Table:
    rows = [
        {"key": f"k{i:04d}", "image_index": 0, "token": token,
         "word": token - 1 if 0 < token <= len(tokens_of(i)) else -1,
         "word_text": word if not word.startswith("<|") else None}
        for i in positions
        for token, word in enumerate(["<|startoftext|>", *tokens_of(i), "<|endoftext|>"])
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def pairs_table(positions: range) -> pa.Table:
    """Overlap falls with the distance of two words, more in some steps than in others."""
    rows = [
        {"key": f"k{i:04d}", "image_index": 0, "step": step, "log_snr": -5.0 + step,
         "layer": "mid-4x4", "token": one + 1, "other": other + 1, "token_text": words[one],
         "other_text": words[other], "word": one, "other_word": other,
         "soft_iou": 1 / (1 + other - one + 0.1 * step), "cosine": 1 - 0.1 * (other - one),
         "js": 0.02 * (other - one) + 0.001 * i}
        for i in positions
        for words in [tokens_of(i)]
        for step in (0, 3)
        for one in range(len(words))
        for other in range(one + 1, len(words))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def latents_table(positions: range, *, collapsed: bool = False) -> pa.Table:
    rng = np.random.default_rng(100 + positions.start)
    rows = [
        {
            "key": f"k{i:04d}", "image_index": 0, "step": step,
            "std": 1 - 0.04 * step + rng.normal(0, 0.02),
            "eps_std": 1 + rng.normal(0, 0.03), "norm_ratio": 1 - 0.01 * step + rng.normal(0, 0.01),
            "cosine_previous": None if step == 0 else 0.9 + 0.01 * step + rng.normal(0, 0.005),
            "guidance_norm": 5.0 + step + rng.normal(0, 0.5), "nonfinite": 0,
        }
        | (lost_noise(step) if collapsed else {})
        for i in positions
        for step in range(10)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def lost_noise(step: int) -> dict[str, float]:
    left = 0.7 ** max(0, step - 3)
    return {"log_snr": step - 8.0, "mean": 0.0, "std": left, "norm": 16 * left,
            "norm_ratio": left, "x0_mean": 0.0, "x0_std": 1.0, "eps_std": left}  # fmt: skip


def heatmaps_table(positions: range) -> pa.Table:
    rows = []
    for i in positions:
        if i % 4 == 3 or has_error(i):
            continue
        for step in (-1, 0, 3, 6, 9):
            for token, word in enumerate(tokens_of(i)):
                y, x = np.mgrid[:8, :8] / 7
                width = 0.08 if len(word) > 2 else 0.6
                heat = np.exp(-((y - 0.3 - 0.02 * i) ** 2 + (x - 0.7 + 0.04 * token) ** 2) / width)
                rows.append({
                    "key": f"k{i:04d}", "image_index": 0, "step": step, "word": token,
                    "token": token + 1, "token_text": word, "height": 8, "width": 8,
                    "map": heat.astype(np.float32).ravel(),
                })  # fmt: skip
    return pa.Table.from_pylist(rows)


def layer_maps_table(positions: range) -> pa.Table:
    """The same words in three groups of layers, each with a resolution of its own."""
    rows = [
        row | {"layer": layer, "height": side, "width": side,
               "map": np.full(side * side, 0.1, np.float32)}
        for row in heatmaps_table(positions).to_pylist() if row["step"] >= 0
        for layer, side in (("down-8x8", 8), ("mid-4x4", 4), ("up_blocks.1.attentions.0.attn2", 8))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def timings_table(positions: range, shard: int, *, older: bool = False) -> pa.Table:
    """Batches of four, the first of each shard the slowest; or whole shards, as before version 3."""
    rows = []
    for stage, seconds in (("generate", 4.0), ("embed:digits", 1.0), ("write", 0.25)):
        size = len(positions) if older or stage == "write" else 4
        for first in positions[::size]:
            at_start = first == positions.start
            rows.append({
                "key": f"k{first:04d}", "image_index": 0, "stage": stage,
                "seconds": seconds * (1 + shard) * (1.0 if at_start else 0.5),
                "samples": min(size, positions.stop - first), "worker": f"node{shard % 2}:41",
                "rank": shard % 2, "device": "cpu", "threads": 2, "batch_size": 4,
                "first_of_worker": shard < 2 and at_start,
            })  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=schemas.TIMINGS)
    return table.drop_columns(["key", "image_index", "first_of_worker"]) if older else table


def schedule_table() -> pa.Table:
    step = np.arange(10)
    log_snr = -5 + 1.2 * step
    alpha = np.sqrt(1 / (1 + np.exp(-log_snr)))
    return pa.table({
        "step": step, "timestep": 900.0 - 90 * step, "alpha": alpha,
        "sigma": np.sqrt(1 - alpha**2), "log_snr": np.where(step == 0, -np.inf, log_snr),
    })  # fmt: skip


METRICS: list[dict[str, Any]] = [
    {
        "name": "fd_digits", "value": 12.3456, "n": 19, "n_expected": 20, "higher_is_better": False,
        "interval": {"low": 11.5, "high": 13.1, "level": 0.95, "method": "jackknife",
                     "covers": "FD at this n"},
        "extractor": "digits", "fingerprint": "bfa3bcfeb3aca2c9",
        "reference": {"name": "real", "n": 359},
        "warnings": ["19 samples: \x1b[31mbelow\x1b[0m 10,000"], "details": {"bias": 0.25},
    },
    {
        "name": "clip_score", "value": 93.7, "n": 20, "n_expected": 20, "higher_is_better": True,
        "interval": {"low": 93.5, "high": 93.9, "level": 0.95, "method": "bootstrap", "covers": ""},
        "extractor": "clip", "fingerprint": "afff3444", "reference": None, "warnings": [],
        "details": {},
    },
    {
        "name": "@SUM(A1)", "value": None, "n": 0, "n_expected": 20, "higher_is_better": None,
        "interval": None, "extractor": None, "fingerprint": None, "reference": None,
        "warnings": ["=HYPERLINK(\"http://evil\")"], "details": {},
    },
]  # fmt: skip


def build(path: Path, recipe: Recipe) -> RunDirectory:
    num = recipe.num_samples
    plan = pa.table(
        {
            "shard": [i // recipe.shard_size for i in range(num)],
            "key": [f"k{i:04d}" for i in range(num)],
            "image_index": [0] * num,
            "seed": [7 * i + 1 for i in range(num)],
            "content": ["0" * 64] * num,
        },
        schema=schemas.PLAN,
    )
    provenance = {"model": {"revision": "a" * 40, "api_key": "sk-hidden"}, "torch": "2.9"}
    init = {"config.yaml": CONFIG, "provenance.json": json.dumps(provenance).encode()}
    run = RunDirectory.create(path, init, plan)
    for index in range(run.num_shards):
        if index not in recipe.missing_shards:
            commit(run, index, recipe)
    if recipe.probes:
        said = None if recipe.says is None else {"warnings": recipe.says}
        target = path / "schedule.parquet"
        schemas.write_table(schedule_table(), target, kind="schedule", metadata=said)
    if recipe.scores:
        run.write_metric_table("memorization", metric_table(num))
    if recipe.metrics:
        counts = {"planned": num, "committed": num, "errors": 1, "truncated": 2}
        record = {"format": 1, "complete": True, "samples": counts, "metrics": METRICS}
        run.write("metrics.json", json.dumps(record).encode())
    return run


def commit(run: RunDirectory, index: int, recipe: Recipe) -> None:
    positions = range(run.shard_starts[index], run.shard_starts[index + 1])
    made = range(positions.start, positions.stop)
    tables = {"samples": samples_table(positions, tags=recipe.scores)}
    if recipe.timings:
        older = index in recipe.older_timings
        tables["timings"] = timings_table(positions, index, older=older)
    if recipe.probes:
        tables["heatmaps_layers"] = layer_maps_table(made)
        tables["attention"] = attention_table(made)
        tables["latents"] = latents_table(made, collapsed=recipe.collapsed)
        tables["heatmaps"] = heatmaps_table(made)
    if recipe.full:
        tables["attention_full"] = attention_table(made[:2])
    if recipe.probes and recipe.pairs:
        tables["attention_tokens"] = tokens_table(made)
        tables["attention_pairs"] = pairs_table(made)
    staged = run.stage(f"{index:05d}.0")
    rows: dict[str, int | None] = {}
    for kind, table in tables.items():
        older_version = {"version": 2} if index in recipe.older_timings else None
        path = staged / f"{kind}.parquet"
        schemas.write_table(table, path, kind=kind, metadata=older_version)
        rows[f"{kind}.parquet"] = table.num_rows
    if recipe.scores:
        name = "features-clip-0123abcd.parquet"
        table = features_table(positions)
        schemas.write_table(table, staged / name, kind="features")
        rows[name] = table.num_rows
    if recipe.images:
        images = [
            (sample_name(f"k{i:04d}", 0), "png", picture(i, recipe.side))
            for i in positions
            if not has_error(i)
        ]
        write_image_tar(staged / "images.tar", images)
        rows["images.tar"] = None
    assert run.publish_shard(index, staged, rows)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Builds a run from changes to the default recipe."""

    def make(**changes: Any) -> RunDirectory:
        return build(tmp_path / "run", replace(Recipe(), **changes))

    return make


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run with everything; tests must not change it."""
    return build(tmp_path_factory.mktemp("full") / "run", Recipe())


@pytest.fixture(scope="session")
def full_report(full_run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its report; tests must not change it."""
    from evaluator.report import write_report

    return write_report(full_run, tmp_path_factory.mktemp("report") / "report").parent


@pytest.fixture(scope="session")
def scored_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run with tags and scores, without probes; tests must not change it."""
    recipe = Recipe(probes=False, scores=True)
    return build(tmp_path_factory.mktemp("scored") / "run", recipe)


@pytest.fixture(scope="session")
def metrics() -> list[dict[str, Any]]:
    """The synthetic run's metrics."""
    return METRICS
