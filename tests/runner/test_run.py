"""The job in one process: what is on disk at the end, and what a second call does."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from evaluator.data import read_image_tar
from evaluator.errors import (
    ConfigError,
    EvaluatorError,
    GenerationError,
    InputError,
    RunDirectoryError,
)
from tests.runner.conftest import bytes_of, run_here


def test_a_run_holds_every_planned_sample_in_every_table(configured, tmp_path):
    outcome = run_here(configured(), tmp_path / "run")
    run = outcome.run
    assert outcome.exit_status == 0
    assert run.num_samples == 28
    planned = list(zip(*(run.plan.column(n).to_pylist() for n in ("key", "image_index"))))
    for pattern in ("samples", "features-digits-*", "features-clip-*"):
        files = sorted((run.path / "shards").glob(f"*/{pattern}.parquet"))
        rows = [
            row
            for file in files
            for row in zip(
                *(pq.read_table(file).column(n).to_pylist() for n in ("key", "image_index"))
            )
        ]
        assert rows == planned
    kept = [
        member.key for shard in range(run.num_shards)
        for member in read_image_tar(run.shard_path(shard) / "images.tar")
    ]  # fmt: skip
    assert kept == [f"{key}__{index:04d}" for key, index in planned]
    for shard in range(run.num_shards):
        run.verify(shard)


def test_probes_name_each_sample_at_each_chosen_step(configured, tmp_path):
    run = run_here(configured(), tmp_path / "run").run
    latents = run.read(0, "latents.parquet", kind="latents")
    attention = run.read(0, "attention.parquet", kind="attention")
    samples = {(s.key, s.image_index) for s in run.shard(0).samples}
    pairs = zip(
        latents.column("key").to_pylist(),
        latents.column("image_index").to_pylist(),
        latents.column("step").to_pylist(),
    )
    assert sorted(pairs) == sorted((k, i, step) for k, i in samples for step in range(3))
    assert set(attention.column("step").to_pylist()) == {0, 2}
    assert set(attention.column("branch").to_pylist()) == {"conditional"}
    found = set(
        zip(attention.column("key").to_pylist(), attention.column("image_index").to_pylist())
    )
    assert found == samples


def test_probes_do_not_change_the_images(configured, tmp_path):
    watched = run_here(configured(), tmp_path / "watched").run
    bare = run_here(configured(probes=None), tmp_path / "bare").run
    for shard in range(bare.num_shards):
        images = [(r.shard_path(shard) / "images.tar").read_bytes() for r in (watched, bare)]
        assert images[0] == images[1]


def test_a_second_call_computes_nothing_again(configured, tmp_path):
    first = run_here(configured(), tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "shards").rglob("*")}
    second = run_here(configured(), tmp_path / "run")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "shards").rglob("*")}
    assert first.summary == second.summary


def test_a_lost_shard_is_made_again_with_the_same_bytes(configured, tmp_path):
    run = run_here(configured(), tmp_path / "run").run
    before = bytes_of(run.path)
    shutil.rmtree(run.shard_path(2))
    run_here(configured(), tmp_path / "run")
    assert bytes_of(run.path) == before


def test_an_extractor_added_later_gives_the_features_it_would_have_given(configured, tmp_path):
    whole = run_here(configured(), tmp_path / "whole").run
    grown = run_here(configured(features=["digits"], metrics=["fd_digits"]), tmp_path / "grown").run
    assert not list(grown.path.glob("shards/*/features-clip-*"))
    before = (grown.shard_path(0) / "images.tar").stat().st_mtime_ns
    outcome = run_here(configured(), tmp_path / "grown")
    assert (grown.shard_path(0) / "images.tar").stat().st_mtime_ns == before
    assert [m.name for m in outcome.summary.metrics][-1] == "clip_score"
    for shard in range(whole.num_shards):
        (name,) = (p.name for p in whole.shard_path(shard).glob("features-clip-*"))
        late, early = (r.shard_path(shard) / name for r in (grown, whole))
        assert late.read_bytes() == early.read_bytes()


def test_a_lossy_codec_is_part_of_what_is_judged(configured, tmp_path):
    lossy = configured(runtime={"images": "webp:40"}, features=["digits"], metrics=["fd_digits"])
    run = run_here(lossy, tmp_path / "run").run
    grown = run_here(
        configured(runtime={"images": "webp:40"}, metrics=["clip_score"]), tmp_path / "run"
    )
    whole = run_here(configured(runtime={"images": "webp:40"}), tmp_path / "whole").run
    (name,) = (p.name for p in whole.shard_path(0).glob("features-clip-*"))
    assert (run.shard_path(0) / name).read_bytes() == (whole.shard_path(0) / name).read_bytes()
    plain = run_here(configured(), tmp_path / "plain").run
    assert not (plain.shard_path(0) / name).exists(), "another codec, another fingerprint"
    fd = next(m for m in run_here(lossy, tmp_path / "run").summary.metrics if m.name == "fd_digits")
    assert any("lossy" in warning for warning in fd.warnings)
    assert grown.exit_status == 0


def test_without_kept_images_nothing_can_be_added(configured, tmp_path):
    few = configured(features=["digits"], metrics=["fd_digits"], runtime={"images": "none"})
    run_here(few, tmp_path / "run")
    with pytest.raises(InputError, match="expected kept images"):
        run_here(configured(runtime={"images": "none"}), tmp_path / "run")


def test_a_value_that_was_refused_does_not_block_the_name(configured, tmp_path, capsys):
    with pytest.raises(EvaluatorError):
        run_here(configured(probes={"attention": {"map_layers": ["no"]}}), tmp_path / "run")
    assert (tmp_path / "run" / "init").is_dir(), "it was refused late"
    few = configured(prompts={"limit": 4}, features=["digits"], metrics=["fd_digits"])
    run_here(few, tmp_path / "run")
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "planned anew" in line]
    assert "nothing was made yet" in said
    with pytest.raises(RunDirectoryError, match=r"generation\.steps"):
        run_here(configured(generation={"steps": 4}), tmp_path / "run")


def test_another_configuration_is_refused_with_its_differences(configured, tmp_path):
    run_here(configured(), tmp_path / "run")
    with pytest.raises(RunDirectoryError) as caught:
        run_here(configured(generation={"steps": 4, "seed": 7, "height": 32}), tmp_path / "run")
    assert "generation.height: the run has none, this configuration 32" in str(caught.value)
    assert "generation.steps: the run has 3, this configuration 4" in str(caught.value)
    assert "generation.seed: the run has 0, this configuration 7" in str(caught.value)
    with pytest.raises(RunDirectoryError, match="planned from other content"):
        run_here(configured(prompts={"limit": 13}), tmp_path / "run")


def test_changed_weights_are_refused(configured, tmp_path, pipeline_folder):
    copy = tmp_path / "model"
    shutil.copytree(pipeline_folder, copy)
    config = configured(model={"kind": "diffusers", "id": str(copy)})
    run = run_here(config, tmp_path / "run").run
    shutil.rmtree(run.shard_path(0))
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunDirectoryError, match="weights or settings changed"):
        run_here(config, tmp_path / "run")


def test_batch_size_and_workers_may_change_and_are_recorded(configured, tmp_path):
    run = run_here(configured(), tmp_path / "run").run
    shutil.rmtree(run.shard_path(0))
    run_here(configured(runtime={"batch_size": 3}), tmp_path / "run")
    sizes = [
        run.read(shard, "timings.parquet", kind="timings").column("batch_size")[0].as_py()
        for shard in (0, 1)
    ]
    assert sizes == [3, 4]


def test_a_sample_depends_on_its_seed_and_not_on_its_batch(configured, tmp_path):
    few = run_here(configured(prompts={"limit": 5}), tmp_path / "few").run
    more = run_here(configured(), tmp_path / "more").run
    for run in (few, more):
        assert run.shard(0).samples[:6] == few.shard(0).samples[:6]
    ours, theirs = (
        run.read(0, "samples.parquet", kind="samples").column("pixels_sha256").to_pylist()
        for run in (few, more)
    )
    assert ours == theirs


def test_consecutive_seeds_are_used_in_plan_order(configured, tmp_path):
    config = configured(generation={"seeds": {"range": "100-127"}})
    run = run_here(config, tmp_path / "run").run
    assert run.plan.column("seed").to_pylist() == list(range(100, 128))
    with pytest.raises(ConfigError, match="expected 28 seeds.*Write 5-32"):
        run_here(configured(generation={"seeds": {"range": "5-9"}}), tmp_path / "other")


@pytest.mark.parametrize("scheduler", ["EulerAncestralDiscreteScheduler", "DDPMScheduler"])
def test_a_stochastic_scheduler_draws_from_the_samples_generators(configured, tmp_path, scheduler):
    def config(**changes):
        folder = configured().model.id
        model = {"kind": "diffusers", "id": folder, "scheduler": {"name": scheduler}}
        return configured(model=model, probes=None, **changes)

    whole = run_here(config(), tmp_path / "whole").run
    part = run_here(config(prompts={"limit": 5}), tmp_path / "part").run
    images = [(r.shard_path(0) / "images.tar").read_bytes() for r in (whole, part)]
    assert images[0] == images[1]


def test_a_moved_global_generator_is_an_error(configured, tmp_path, dit_folder):
    stochastic = {"name": "DDPMScheduler"}
    model = {"kind": "diffusers", "id": str(dit_folder), "scheduler": stochastic}
    prompts = tmp_path / "classes.jsonl"
    prompts.write_text("\n".join(json.dumps({"key": f"c{i}", "class_label": i}) for i in range(4)))
    changes = {"model": model, "probes": None, "metrics": ["fd_digits"], "features": ["digits"],
               "prompts": {"source": str(prompts), "limit": None}}  # fmt: skip
    with pytest.raises(GenerationError, match="drew from the global random generator"):
        run_here(configured(**changes), tmp_path / "run")
    model["scheduler"] = {"name": "DDIMScheduler"}
    outcome = run_here(configured(**changes), tmp_path / "quiet")
    assert outcome.summary.counts.committed == 8


def test_schedule_and_provenance_are_kept(configured, tmp_path):
    run = run_here(configured(), tmp_path / "run").run
    schedule = pq.read_table(run.path / "schedule.parquet")
    assert schedule.num_rows == 3
    assert np.all(np.diff(schedule.column("log_snr").to_numpy()) > 0)
    provenance = json.loads(run.init_file("provenance.json"))
    assert len(provenance["model"]["weights_sha256"]) == 64
    assert "torch" in provenance["versions"]
    (launch,) = run.launches()
    assert launch["world_size"] == 1
