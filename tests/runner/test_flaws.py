"""Memory that does not suffice, and images that nobody wanted: said, recorded, and counted."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from evaluator.config import RunConfig
from evaluator.errors import GenerationError
from evaluator.records import Prompt, Sample, Shard
from evaluator.runner.memory import MicroBatch
from evaluator.runner.shard import ShardMaker
from evaluator.runner.status import Status
from evaluator.store import schemas
from evaluator.store.claims import Claims, Worker, counted
from evaluator.store.rundir import RunDirectory
from tests.runner.conftest import bytes_of, run_here
from tests.runner.custom_models import Noise

CODE = "tests.runner.custom_models"


@pytest.fixture
def custom(configured):
    """Ten prompts, two images each, in shards of four made in one batch."""

    def make(target, *, features=("digits",), metrics=("is_digits",), **options):
        return configured(
            model={"kind": "custom", "target": f"{CODE}:{target}", "options": options},
            prompts={"limit": 10}, probes=None, references=None, features=list(features),
            metrics=list(metrics), runtime={"shard_size": 4, "batch_size": 4},
        )  # fmt: skip

    return make


def micro_batches(run: RunDirectory, shard: int) -> dict[str, int | None]:
    timings = run.read(shard, "timings.parquet", kind="timings")
    return dict(zip(timings.column("stage").to_pylist(), timings.column("micro_batch").to_pylist()))


def test_a_batch_that_does_not_fit_is_halved_said_once_and_recorded(custom, tmp_path, caplog):
    log = tmp_path / "log"
    whole = run_here(custom("Greedy", limit=4), tmp_path / "whole", allow_code=True).run
    with caplog.at_level(logging.WARNING):
        config = custom("Greedy", limit=1, log=str(log))
        run = run_here(config, tmp_path / "run", allow_code=True).run
    assert bytes_of(run.path) == bytes_of(whole.path)
    said = [r.getMessage() for r in caplog.records if "does not suffice" in r.getMessage()]
    assert len(said) == 2, "four to two, two to one, and never again"
    assert "CUDA out of memory" in said[0]
    assert log.read_text().split() == ["4", "2"] + ["1"] * 20
    assert micro_batches(run, 0)["generate"] == micro_batches(run, 4)["generate"] == 1
    assert micro_batches(whole, 0)["generate"] == 4
    assert micro_batches(whole, 0)["tokenize"] is None


def test_a_single_sample_that_does_not_fit_ends_the_run_and_blames_no_shard(custom, tmp_path):
    with pytest.raises(GenerationError, match="does not suffice for a single sample .*cpu_offload"):
        run_here(custom("Greedy", limit=0), tmp_path / "run", allow_code=True)
    claims = Claims(tmp_path / "run" / "claims", Worker.current(), lease_seconds=60).attempts()
    assert {a[-1].state for a in claims.values()} == {"released"}
    assert not any(counted(attempts) for attempts in claims.values())


def test_probes_name_the_samples_of_a_batch_that_went_through_in_parts(
    configured, pipeline_folder, tmp_path
):
    def make(limit):
        options = {"folder": str(pipeline_folder), "limit": limit}
        model = {"kind": "custom", "target": f"{CODE}:GreedyPipeline", "options": options}
        return configured(
            model=model, prompts={"limit": 5}, features=[], metrics=[], references=None,
            runtime={"shard_size": 10, "batch_size": 4},
        )  # fmt: skip

    tables = []
    for limit in (4, 3):
        run = run_here(make(limit), tmp_path / str(limit), allow_code=True).run
        for name in ("latents", "attention"):
            table = run.read(0, f"{name}.parquet", kind=name)
            order = [n for n in ("key", "image_index", "step", "layer") if n in table.column_names]
            tables.append(table.sort_by([(name, "ascending") for name in order]))
    for whole, parts in zip(tables[:2], tables[2:]):
        assert whole.num_rows == parts.num_rows
        for name in ("key", "image_index", "step"):
            assert whole.column(name).equals(parts.column(name))
    mean = [table.column("mean").to_numpy() for table in tables[::2]]
    assert np.allclose(*mean, atol=1e-3), "other companions: the same to rounding"


class Watching:
    """A probe with a row for each sample, which needs memory to give them."""

    def __init__(self, name: str, fits: int) -> None:
        self.name, self.fits = name, fits

    @contextmanager
    def attach(self, model, prompts, positions):
        self.seen = len(prompts)
        yield self

    def tables(self):
        if self.seen > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return {self.name: pa.table({"sample": pa.array(range(self.seen), pa.int32())})}


def test_a_batch_repeated_because_of_one_probe_has_the_rows_of_others_once() -> None:
    samples = tuple(Sample(i, f"k{i}", 0, i) for i in range(6))
    probes = [Watching("first", fits=4), Watching("second", fits=2)]
    with ThreadPoolExecutor(1) as encoders:
        maker = ShardMaker(
            Noise(device="cpu"), [], probes, batch_size=4, images="none", encoders=encoders
        )
        prompts = [Prompt(sample.key) for sample in samples]
        result = maker.make(Shard(0, samples), prompts, lambda done: None)
    for name in ("first", "second"):
        keys = pa.concat_tables(result.observed[name]).column("key").to_pylist()
        assert keys == [sample.key for sample in samples]


def test_an_extractor_that_does_not_fit_embeds_in_parts(custom, tmp_path):
    feature = {"name": "greedy", "kind": f"{CODE}:GreedyExtractor"}
    config = custom("Noise", features=[feature], metrics=["vendi_greedy"])
    outcome = run_here(config, tmp_path / "run", allow_code=True)
    assert outcome.exit_status == 0
    assert micro_batches(outcome.run, 3)["embed:greedy"] == 2


def test_other_errors_of_the_device_are_not_taken_for_a_lack_of_memory() -> None:
    def work(start: int, stop: int) -> int:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        MicroBatch("generating").split(4, work)


def test_parts_cover_the_batch_whatever_fits() -> None:
    for count, fits in ((7, 7), (7, 3)):
        seen: list[int] = []

        def work(start: int, stop: int, fits: int = fits, seen: list[int] = seen) -> None:
            if stop - start > fits:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            seen.extend(range(start, stop))

        memory = MicroBatch("generating")
        memory.split(count, work)
        assert seen == list(range(count))
        assert memory.size is None or memory.size <= fits


def test_black_images_are_judged_marked_counted_and_said(custom, tmp_path, call):
    plan = run_here(custom("Dark"), tmp_path / "plain", allow_code=True).run.plan
    keys = plan.column("key").to_pylist()
    config = custom("Dark", black=[keys[0], keys[10]], nan=[keys[4]])
    outcome = run_here(config, tmp_path / "run", allow_code=True)
    counts = outcome.summary.counts
    assert (counts.black, counts.non_finite, counts.errors) == (4, 2, 2)
    (metric,) = outcome.summary.metrics
    assert metric.n == 18, "what is no image is in no number"
    assert any("2 of 20 images were not finite" in warning for warning in metric.warnings)
    assert any("4 of 20 images are entirely black" in warning for warning in metric.warnings)
    assert outcome.exit_status == 1
    samples = outcome.run.read(1, "samples.parquet", kind="samples")
    assert samples.column("flaw").to_pylist() == ["non_finite", "non_finite", None, None]
    assert "NaN or infinite; try another dtype" in samples.column("error")[0].as_py()
    ended = call("aggregate", outcome.run.path, "--allow-code")
    assert "2 not finite, 4 entirely black" in ended.out
    ended = call("status", outcome.run.path)
    assert "4 images entirely black, 2 images not finite" in ended.out


def test_a_shard_made_again_without_flaws_is_said_to_have_none(custom, tmp_path):
    config = custom("Dark")
    run = run_here(config, tmp_path / "run", allow_code=True).run
    run.note_flaws(2, {"black": 3})  # as a decoder that overflows on one device only left it
    assert run.flaws() == {"black": 3}
    run.shard_path(2).rename(run.path / "quarantine" / "00002.0")
    run_here(config, tmp_path / "run", allow_code=True)
    assert run.is_committed(2)
    assert run.flaws() == {}


def with_long_shards(config: RunConfig) -> RunConfig:
    """Three of eight images."""
    runtime = config.runtime.model_copy(update={"shard_size": 8})
    prompts = config.prompts.model_copy(update={"limit": 12})
    return config.model_copy(update={"runtime": runtime, "prompts": prompts})


def test_a_model_that_gives_nothing_but_nan_ends_the_run(custom, tmp_path):
    config = with_long_shards(custom("Dark", nan=["all"]))
    with pytest.raises(GenerationError, match="3 shards failed in a row.*NaN or infinity for all"):
        run_here(config, tmp_path / "run", allow_code=True)
    claims = Claims(tmp_path / "run" / "claims", Worker.current(), lease_seconds=60).attempts()
    assert not any(counted(attempts) for attempts in claims.values())


def test_prompts_that_give_nothing_but_nan_end_no_run(custom, tmp_path):
    plain = run_here(with_long_shards(custom("Dark")), tmp_path / "plain", allow_code=True).run
    keys = plain.plan.column("key").to_pylist()
    config = with_long_shards(custom("Dark", nan=keys[:8]))
    outcome = run_here(config, tmp_path / "run", allow_code=True)
    assert outcome.errors == ()
    assert outcome.run.committed() == [0, 1, 2]
    assert outcome.summary.counts.non_finite == 8


def test_tables_of_an_older_version_are_read_with_nulls_for_what_is_new(tmp_path: Path) -> None:
    old = schemas.SAMPLES.remove(schemas.SAMPLES.get_field_index("flaw"))
    columns = [pa.nulls(2, f.type) if f.nullable else pa.array([1, 2]).cast(f.type) for f in old]
    path = tmp_path / "samples.parquet"
    schemas.write_table(pa.table(columns, schema=old), path, kind="samples")
    assert schemas.read_table(path, kind="samples").column("flaw").null_count == 2
    found = schemas.read_table(path, kind="samples", columns=["key", "flaw"])
    assert found.column_names == ["key", "flaw"]
    assert schemas.read_table(path, kind="samples", columns=["key"]).column_names == ["key"]


@pytest.mark.parametrize(
    ("flaws", "line"),
    [
        ({"black": 1, "non_finite": 0}, "  1 image entirely black"),
        ({"black": 2, "non_finite": 1}, "  2 images entirely black, 1 image not finite (NaN, inf"),
        ({"non_finite": 3}, "  3 images not finite (NaN, infinity)"),
    ],
)
def test_flaws_are_counted_in_words_and_only_those_there_are(flaws, line):
    told = Status(1, 4, 1, 4, {}, (), {}, (), flaws).lines()
    assert told[1].startswith(line)
    assert len(told) == 2


def test_no_flaws_are_no_line():
    nothing = {"black": 0, "non_finite": 0}
    assert len(Status(1, 4, 1, 4, {}, (), {}, (), nothing).lines()) == 1
