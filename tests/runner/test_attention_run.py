"""Attention in a run: half precision, chosen samples, layers once a shard, any world."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from evaluator.errors import ConfigError
from evaluator.probes.schemas import ATTENTION_STATISTICS, LAYER_SCHEMA
from evaluator.records import Sample, Shard
from evaluator.runner.dryrun import describe_job
from evaluator.runner.plan import make_plan
from evaluator.runner.shard import ShardMaker, ShardResult
from tests.runner.conftest import bytes_of, launch, run_here

LAYERS = 7
"""Layers of the digits world's UNet that look at the text."""


@pytest.fixture
def watched(configured):
    """A run of 12 samples in two shards, nothing embedded, with these attention settings."""

    def make(**attention):
        less = {"references": None, "features": [], "metrics": [], "prompts": {"limit": 6}}
        return configured(**less, probes={"attention": {"steps": 2, **attention}, "latents": None})

    return make


def files(run, name):
    return [run.shard_path(shard) / f"{name}.parquet" for shard in range(run.num_shards)]


def test_statistics_are_half_on_disk_and_single_when_read(watched, tmp_path):
    half = run_here(watched(pairs=True), tmp_path / "half").run
    single = run_here(watched(pairs=True, dtype="float32"), tmp_path / "single").run
    kinds = {pq.read_schema(f).field("mass").type for f in files(half, "attention")}
    assert kinds == {pa.float16()}
    assert pq.read_schema(files(half, "attention_pairs")[0]).field("js").type == pa.float16()
    assert pq.read_schema(files(half, "heatmaps")[0]).field("map").type == pa.list_(pa.float16())
    with pq.ParquetFile(files(half, "attention")[0]) as file:
        group = file.metadata.row_group(0)
        columns = [group.column(i) for i in range(group.num_columns)]
    coded = {c.path_in_schema for c in columns if c.has_dictionary_page}
    assert coded == {"key", "layer", "token_text", "branch", "note"}
    for shard in range(half.num_shards):
        ours, wide = (r.read(shard, "attention.parquet", kind="attention") for r in (half, single))
        for name in wide.column_names:
            assert ours.schema.field(name).type == wide.schema.field(name).type
            if name not in ATTENTION_STATISTICS:
                assert ours.column(name).equals(wide.column(name))
                continue
            expected = wide.column(name).to_numpy().astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(ours.column(name).to_numpy(), expected)
    assert files(half, "images")[0].with_suffix(".tar").read_bytes() == (
        files(single, "images")[0].with_suffix(".tar").read_bytes()
    )


def test_chosen_samples_are_kept_in_full_and_mapped_by_key(watched, tmp_path):
    chosen, mapped = "digit-0014", "digit-0010"
    run = run_here(watched(full=[chosen], maps=[mapped]), tmp_path / "run").run
    keys = run.plan.column("key").to_pylist()
    assert keys.index(mapped) < 6 <= keys.index(chosen)
    plain = run_here(watched(maps=[mapped]), tmp_path / "without").run
    every = run_here(
        watched(steps="all", layers="all", dtype="float32", maps=0), tmp_path / "every"
    ).run
    rows = {"attention": [], "attention_full": [], "heatmaps": [], "every": []}
    for shard in range(run.num_shards):
        for name in ("attention", "attention_full", "heatmaps"):
            rows[name] += run.read(shard, f"{name}.parquet", kind=name).to_pylist()
        table = every.read(shard, "attention.parquet", kind="attention")
        rows["every"] += [row for row in table.to_pylist() if row["key"] == chosen]
        for name in ("attention.parquet", "images.tar"):
            there, here = (r.shard_path(shard) / name for r in (plain, run))
            assert there.read_bytes() == here.read_bytes()
    assert {(r["key"], r["image_index"]) for r in rows["attention_full"]} == {
        (chosen, 0), (chosen, 1)
    }  # fmt: skip
    assert {r["key"] for r in rows["heatmaps"]} == {mapped}
    assert {r["key"] for r in rows["attention"]} == set(keys)
    assert len(rows["every"]) == len(rows["attention_full"]) > 0
    for ours, wanted in zip(rows["attention_full"], rows["every"], strict=True):
        assert ours.keys() == wanted.keys()
        for name, value in wanted.items():
            near = isinstance(value, float)
            assert ours[name] == (pytest.approx(value, rel=2e-5, abs=1e-6) if near else value)


def test_layers_are_there_once_a_shard_under_its_first_sample(watched, tmp_path):
    run = run_here(watched(), tmp_path / "run").run
    for shard in range(run.num_shards):
        rows = run.read(shard, "attention_layers.parquet", kind="attention_layers").to_pylist()
        first = run.shard(shard).samples[0]
        assert {(row["key"], row["image_index"]) for row in rows} == {
            (first.key, first.image_index)
        }
        assert len({row["name"] for row in rows}) == len(rows) == LAYERS


class Observed:
    """An observation whose standing table changes with the batch."""

    def __init__(self, height):
        row = {"sample": 0, "name": "attn", "kind": "cross", "group": "mid", "heads": 1}
        layers = [row | {"height": height, "width": 8}]
        self.found = {
            "attention_layers": pa.Table.from_pylist(layers, LAYER_SCHEMA),
            "plain": pa.table({"sample": pa.array([0], pa.int32()), "height": [height]}),
        }

    def tables(self):
        return self.found


def test_layers_that_change_within_a_shard_are_told_where_they_change():
    maker = ShardMaker(None, [], [], batch_size=1, images="none", encoders=None)
    samples = [Sample(i, f"k{i}", 0, 0) for i in range(5)]
    result = ShardResult(Shard(0, tuple(samples)), [])
    for sample, height in zip(samples, (8, 8, 4, 4, 8), strict=True):
        maker._collect(result, Observed(height).tables(), [sample], [])
    layers = pa.concat_tables(result.observed["attention_layers"])
    assert layers.column("key").to_pylist() == ["k0", "k2", "k4"]
    assert layers.column("height").to_pylist() == [8, 4, 8]
    assert len(result.observed["plain"]) == 5


def test_keys_that_no_prompt_has_are_all_named_with_what_they_might_have_been(watched):
    keys = [f"{i:06d}" for i in range(20)] + ["Red-seven", "a_dog"]
    config = watched(full=["000003", "7", "a-dog", "neither"], maps=["red-seven", "neither"])
    with pytest.raises(ConfigError, match="expected keys of the first 6 prompts of") as caught:
        make_plan(config, keys, [""] * len(keys))
    assert caught.value.faults == (
        "probes.attention.maps: 'red-seven'; did you mean 'Red-seven'?",
        "probes.attention.maps and probes.attention.full: 'neither'",
        "probes.attention.full: '7'; did you mean '000007'?",
        "probes.attention.full: 'a-dog'; did you mean 'a_dog'?",
    )
    config = watched(full=["digit-x", "digit-12", "digt-0012"])
    keys_of_digits = [f"digit-{i:04d}" for i in range(20)]
    with pytest.raises(ConfigError, match=r"\('digit-0000' to 'digit-0019'\)") as caught:
        make_plan(config, keys_of_digits, [""] * 20)
    assert caught.value.faults == (
        "probes.attention.full: 'digit-x'",  # all are as near
        "probes.attention.full: 'digit-12'; did you mean 'digit-0012'?",
        "probes.attention.full: 'digt-0012'; did you mean 'digit-0012'?",
    )
    many = watched(full=[f"unknown {i}" for i in range(500)])
    with pytest.raises(ConfigError) as caught:
        make_plan(many, keys, [""] * len(keys))
    assert len(caught.value.faults) == 500
    make_plan(watched(full=keys, maps=10**9), keys, [""] * len(keys))


def test_unknown_keys_are_found_before_anything_is_made(watched, tmp_path):
    config = watched(full=["digit-1"])
    with pytest.raises(ConfigError, match="'digit-1'; did you mean 'digit-0"):
        run_here(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="'digit-1'; did you mean 'digit-0"):
        describe_job(config, relative_to=tmp_path, allow_code=False)


def test_a_head_that_no_layer_has_is_refused_before_references_are_made(watched, tmp_path):
    config = watched(maps=2, map_heads=[0, 99])
    config = config.model_copy(
        update={"runtime": config.runtime.model_copy(update={"cache": str(tmp_path / "cache")})}
    )
    message = r"map_heads: expected numbers below \d+, the heads of .*; got 99\."
    with pytest.raises(ConfigError, match=message):
        describe_job(config, relative_to=tmp_path, allow_code=False)
    with pytest.raises(ConfigError, match=message):
        run_here(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == ["packs"]


@pytest.mark.slow
def test_two_processes_give_the_same_tables_as_one(watched, settings, tmp_path):
    config = watched(full=3, maps=2, pairs=True)
    alone = run_here(config, tmp_path / "alone").run
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    done = launch(
        "accelerate", 2, ["run", str(path), "--output", str(tmp_path / "two")],
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours, theirs = bytes_of(tmp_path / "two"), bytes_of(alone.path)
    assert {name for name in ours if "attention_full" in name}
    ours, theirs = ({n: b for n, b in x.items() if "commit" not in n} for x in (ours, theirs))
    assert ours == theirs
