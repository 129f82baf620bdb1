"""What goes wrong stays where it went wrong, is counted, and is said."""

from __future__ import annotations

import json

import pytest

from evaluator.errors import (
    ConfigError,
    GenerationError,
    ProbeError,
)
from evaluator.runner.finished import finished_summary
from evaluator.runner.session import aggregate_session
from evaluator.runner.status import read_status
from evaluator.runner.trust import Trust
from evaluator.store.rundir import RunDirectory
from tests.runner.conftest import bytes_of, run_here


@pytest.fixture
def noise(configured):
    """A run of a custom model, ten prompts, shards of two."""

    def make(target="Noise", **options):
        model = {"kind": "custom", "target": f"tests.runner.custom_models:{target}"}
        return configured(
            model={**model, "options": options},
            prompts={"limit": 10},
            probes=None,
            features=["digits"],
            metrics=["fd_digits"],
            runtime={"shard_size": 4, "batch_size": 4},
        )

    return make


def test_a_long_prompt_is_kept_marked_and_counted(configured, tmp_path):
    prompts = tmp_path / "p.txt"
    prompts.write_text("a red seven on a black background\n" + "very " * 40 + "long\n")
    config = configured(
        prompts={"source": str(prompts), "limit": None}, metrics=["clip_score"], probes=None
    )
    outcome = run_here(config, tmp_path / "run")
    assert outcome.summary.counts.truncated == 2, "two images of one prompt"
    samples = outcome.run.read(0, "samples.parquet", kind="samples")
    assert samples.column("truncated").to_pylist() == [False, False, True, True]
    assert samples.column("prompt")[2].as_py().endswith("long")


def test_a_prompt_without_a_text_is_an_error_row(configured, tmp_path):
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"key": "a"}\n{"key": "b"}\n')
    config = configured(
        prompts={"source": str(prompts), "limit": None}, metrics=["fd_digits"], probes=None
    )
    outcome = run_here(config, tmp_path / "run")
    assert outcome.summary.counts.errors == 4
    assert outcome.exit_status == 1
    assert "expected a prompt with a text" in outcome.summary.error_lines[0]


def test_a_shard_that_breaks_the_model_is_set_aside_and_the_rest_finishes(noise, tmp_path):
    run_here(noise(), tmp_path / "whole", allow_code=True)
    broken = RunDirectory.open(tmp_path / "whole").shard(1).samples[0].key
    outcome = run_here(noise(broken=[broken]), tmp_path / "run", allow_code=True)
    assert outcome.exit_status == 1
    (error,) = outcome.errors
    assert "shard 00001" in error
    assert "this prompt breaks the model" in error
    assert outcome.run.committed() == [0, 2, 3, 4]
    (fd,) = outcome.summary.metrics
    assert (fd.n, fd.n_expected) == (16, 20)
    status = read_status(outcome.run)
    assert status.exit_status == 1
    assert "this prompt breaks the model" in status.set_aside["00001"]


def test_many_bad_shards_are_set_aside_and_tried_again_when_asked(noise, tmp_path):
    plan = RunDirectory.open(run_here(noise(), tmp_path / "whole", allow_code=True).run.path)
    bad = [plan.shard(index).samples[0].key for index in (0, 2, 3, 4)]
    # Between them a good one each, so that the worker itself is not to blame.
    log = tmp_path / "log"
    config = noise(broken=bad[:1] + bad[2:3], log=str(log), mended=str(tmp_path / "mended"))
    outcome = run_here(config, tmp_path / "run", allow_code=True)
    assert len(outcome.errors) == 2
    assert log.read_text().count("\n") == 3 + 2 * 3, "each three times, the last at the end"
    assert run_here(config, tmp_path / "run", allow_code=True).exit_status == 1
    assert log.read_text().count("\n") == 9, "what is set aside is not tried unasked"
    again = run_here(config, tmp_path / "run", retry_failed=True, allow_code=True)
    assert again.exit_status == 1
    assert log.read_text().count("\n") == 15
    (tmp_path / "mended").touch()
    mended = run_here(config, tmp_path / "run", retry_failed=True, allow_code=True)
    assert mended.exit_status == 0
    assert bytes_of(mended.run.path) == bytes_of(plan.path)


def test_what_was_set_aside_is_tried_again_once_a_launch(noise, tmp_path):
    plan = RunDirectory.open(run_here(noise(), tmp_path / "whole", allow_code=True).run.path)
    log = tmp_path / "log"
    config = noise(broken=[plan.shard(1).samples[0].key], log=str(log))
    run_here(config, tmp_path / "run", allow_code=True)
    tries = log.read_text().count("\n")
    for launch, more in (("a", 3), ("a", 0), ("b", 3)):
        # The second time stands for another process of the launch that comes late.
        again = run_here(
            config, tmp_path / "run", retry_failed=True, launch=launch, allow_code=True
        )
        assert again.exit_status == 1
        tries += more
        assert log.read_text().count("\n") == tries, launch


def test_a_late_table_that_fails_is_set_aside_and_the_rest_is_there(configured, tmp_path):
    def images(**changes):
        return configured(
            model={"kind": "images"}, probes=None, generation={"images_per_prompt": 1},
            **changes,
        )  # fmt: skip

    few = images(features=["digits"], metrics=["fd_digits"])
    run = run_here(few, tmp_path / "run").run
    samples = run.read(1, "samples.parquet", kind="samples")
    options = {
        "refuse": samples.column("pixels_sha256")[2].as_py(),
        "marker": str(tmp_path / "mended"),
    }
    picky = {"name": "picky", "kind": "tests.runner.custom_models:Picky", "options": options}
    asked = images(features=["digits", picky], metrics=["fd_digits", "vendi_picky"])
    outcome = run_here(asked, tmp_path / "run", allow_code=True)
    (error,) = outcome.errors
    assert "of shard 00001, after 3 attempts" in error
    assert "too bright" in error
    assert len(list(run.path.glob("shards/*/features-picky-*"))) == run.num_shards - 1
    status = read_status(run)
    assert status.exit_status == 1
    assert "too bright" in "\n".join(status.lines())
    fd, picked = outcome.summary.metrics
    assert fd.value is not None
    assert picked.value is None, "a number of a part would pass for one of the whole"
    (tmp_path / "mended").touch()
    assert run_here(asked, tmp_path / "run", retry_failed=True, allow_code=True).exit_status == 0


def test_a_fault_that_every_shard_meets_ends_the_run_at_once(noise, configured, tmp_path):
    keys = RunDirectory.open(
        run_here(noise(), tmp_path / "whole", allow_code=True).run.path
    ).plan.column("key")
    log = tmp_path / "log"
    config = noise(broken=keys.to_pylist(), log=str(log))
    with pytest.raises(GenerationError, match="3 shards failed in a row.*this prompt breaks"):
        run_here(config, tmp_path / "run", allow_code=True)
    assert log.read_text().count("\n") == 3


def test_a_shard_that_cannot_be_written_is_not_blamed_on_the_next(configured, tmp_path):
    prompts = tmp_path / "p.jsonl"
    labels = [1, 2, 10**20, 4, 5, 6]  # the third fits no int64 column
    lines = [f'{{"key": "k{i}", "class_label": {label}}}' for i, label in enumerate(labels)]
    prompts.write_text("\n".join(lines))
    model = {"kind": "custom", "target": "tests.runner.custom_models:Noise", "options": {}}
    config = configured(
        model=model, prompts={"source": str(prompts), "limit": None}, probes=None,
        features=["digits"], metrics=["fd_digits"], generation={"images_per_prompt": 1},
        runtime={"shard_size": 1, "batch_size": 1},
    )  # fmt: skip
    outcome = run_here(config, tmp_path / "run", allow_code=True)
    (error,) = outcome.errors
    assert "shard 00002" in error
    assert "OverflowError" in error
    assert "--retry-failed tries it again" in error
    assert outcome.run.committed() == [0, 1, 3, 4, 5]


def test_a_number_that_was_missing_is_computed_when_the_run_is_called_again(noise, tmp_path):
    outcome = run_here(noise(), tmp_path / "run", allow_code=True)
    path = outcome.run.path / "metrics.json"
    record = json.loads(path.read_text())
    record["metrics"][0]["value"] = None
    path.write_text(json.dumps(record))
    trust = Trust(allow_code=True)
    assert finished_summary(noise(), outcome.run.path, trust) is None
    run_here(noise(), tmp_path / "run", allow_code=True)
    assert finished_summary(noise(), outcome.run.path, trust) is not None


def test_aggregate_imports_no_code_without_leave(noise, tmp_path):
    run = run_here(noise(), tmp_path / "run", allow_code=True).run
    asked = json.loads((run.path / "asked.json").read_text())
    asked["metrics"] = [{"name": "os:system", "extractor": "digits"}]
    (run.path / "asked.json").write_text(json.dumps(asked))
    with pytest.raises(ConfigError, match="--allow-code"):
        aggregate_session(run.path, allow_code=False)


def test_late_features_of_images_kept_by_a_lossy_codec_are_of_what_was_kept(configured, tmp_path):
    def images(**changes):
        return configured(
            model={"kind": "images"}, probes=None, generation={"images_per_prompt": 1},
            runtime={"images": "webp:30"}, **changes,
        )  # fmt: skip

    whole = run_here(images(), tmp_path / "whole").run
    run_here(images(features=["digits"], metrics=["fd_digits"]), tmp_path / "grown")
    grown = run_here(images(), tmp_path / "grown").run
    (name,) = (path.name for path in whole.shard_path(0).glob("features-clip-*"))
    late, early = (r.shard_path(0) / name for r in (grown, whole))
    assert late.read_bytes() == early.read_bytes()


def test_a_model_that_returns_too_few_images_is_found(noise, tmp_path):
    with pytest.raises(GenerationError, match="expected 4 images from the model, got 3"):
        run_here(noise("Short"), tmp_path / "run", allow_code=True)


def test_code_is_not_imported_without_leave(noise, tmp_path):
    with pytest.raises(ConfigError, match="--allow-code"):
        run_here(noise(), tmp_path / "run")


def test_a_probe_that_cannot_see_ends_the_run_and_says_why(configured, tmp_path, dit_folder):
    prompts = tmp_path / "classes.jsonl"
    prompts.write_text('{"key": "c", "class_label": 1}\n')
    config = configured(
        model={"kind": "diffusers", "id": str(dit_folder)},
        prompts={"source": str(prompts), "limit": None},
        metrics=["fd_digits"],
        features=["digits"],
        probes={"attention": {"steps": 1}, "latents": None},
    )
    with pytest.raises(ProbeError):
        run_here(config, tmp_path / "run")


def test_a_scheduler_that_does_not_exist_or_takes_no_such_argument(configured, tmp_path):
    folder = configured().model.id
    for scheduler, message in (
        ({"name": "DDIMSchedular"}, "expected a scheduler class of diffusers"),
        ({"name": "DDIMScheduler", "arguments": {"karras": True}}, "takes no karras"),
    ):
        model = {"kind": "diffusers", "id": folder, "scheduler": scheduler}
        with pytest.raises(ConfigError, match=message):
            run_here(configured(model=model), tmp_path / "run")


def test_an_argument_that_the_pipeline_does_not_take(configured, tmp_path):
    folder = configured().model.id
    model = {"kind": "diffusers", "id": folder, "arguments": {"etta": 1}}
    with pytest.raises(ConfigError, match=r"model.arguments.etta: StableDiffusionPipeline takes"):
        run_here(configured(model=model), tmp_path / "run")
