"""What a run is compared with: images, another run, published moments; whole and by group."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import yaml
from PIL import Image

from evaluator.aggregate.asked import Asked
from evaluator.aggregate.compute import aggregate
from evaluator.aggregate.features import FeatureReader
from evaluator.aggregate.summary import MetricRecord
from evaluator.config import RunConfig, parse_config
from evaluator.distributed import World
from evaluator.errors import ConfigError, EvaluatorError, InputError
from evaluator.metrics import frechet_distance_from_features
from evaluator.protocols import SampleMetric
from evaluator.runner.dryrun import describe_job
from evaluator.runner.evaluation import Outcome
from evaluator.runner.finished import finished_summary
from evaluator.runner.trust import Trust
from evaluator.store.rundir import RunDirectory
from tests.aggregate.custom_metrics import MeanShift
from tests.runner.conftest import merged, run_here

DIGITS = "package://evaluator/demo/data/test.parquet"
IMAGES: dict[str, Any] = {
    "name": "images",
    "model": {"kind": "images"},
    "prompts": {"source": DIGITS, "limit": 60},
    "references": {"real": {"source": DIGITS, "limit": 150}},
    "features": ["digits"],
    "metrics": ["fd_digits"],
    "runtime": {"threads": 1, "batch_size": 8, "shard_size": 25},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def images(cache: Path) -> Callable[..., RunConfig]:
    """A configuration that judges real digits as if a model had made them, with changes."""

    def make(**changes: Any) -> RunConfig:
        record = merged(merged(IMAGES, {"runtime": {"cache": str(cache)}}), changes)
        return parse_config(yaml.safe_dump(record), where="test")

    return make


def features_of(run: Path) -> np.ndarray:
    tables = [pq.read_table(path) for path in sorted(run.glob("shards/*/features-digits-*"))]
    return np.concatenate(
        [np.stack(table.column("features").to_numpy(zero_copy_only=False)) for table in tables]
    )


def only(outcome: Outcome) -> MetricRecord:
    (record,) = outcome.summary.metrics
    return record


def test_a_run_is_compared_with_another_run(images, tmp_path):
    other = run_here(
        images(prompts={"limit": 150}, metrics=[], references=None), tmp_path / "other"
    )
    config = images(references={"real": None, "model": {"run": str(other.run.path)}})
    against_run = only(run_here(config, tmp_path / "run"))
    against_images = only(run_here(images(), tmp_path / "run"))
    assert against_run.value == pytest.approx(against_images.value, rel=1e-11)  # other shards
    assert against_run.reference == {"name": "model", "n": 150}


def test_another_model_on_the_same_prompts_is_another_reference(images, tmp_path):
    kept = {"png": tmp_path / "one", "webp:5": tmp_path / "two"}
    for codec, path in kept.items():
        run_here(images(metrics=[], references=None, runtime={"images": codec}), path)
    plans = {(path / "init" / "plan.parquet").read_bytes() for path in kept.values()}
    assert len(plans) == 1
    asked = [images(references={"real": None, "m": {"run": str(p)}}) for p in kept.values()]
    trust = Trust(allow_code=False, relative_to=tmp_path)
    outcome = run_here(asked[0], tmp_path / "run")
    assert finished_summary(asked[0], tmp_path / "run", trust) == outcome.summary
    assert finished_summary(asked[1], tmp_path / "run", trust) is None


def test_numbers_that_answer_another_request_are_computed_anew(images, tmp_path):
    mine, other = images(), images(references={"real": {"limit": 120}})
    run_here(mine, tmp_path / "run")
    numbers = (tmp_path / "run" / "metrics.json").read_bytes()
    run_here(other, tmp_path / "run")
    # as when two ask at the same time, and the first writes its numbers last
    (tmp_path / "run" / "metrics.json").write_bytes(numbers)
    trust = Trust(allow_code=False, relative_to=tmp_path)
    assert finished_summary(other, tmp_path / "run", trust) is None
    found = finished_summary(mine, tmp_path / "run", trust)
    assert found is not None
    assert found.metrics[0].reference == {"name": "real", "n": 150}


def test_weights_that_changed_in_place_are_looked_at_again(images, tmp_path):
    weights = tmp_path / "clip"
    shutil.copytree("evaluator/demo/weights/clip", weights)
    config = images(features=[{"name": "clip", "id": str(weights)}], metrics=["fd_clip"])
    before = run_here(config, tmp_path / "run").summary
    trust = Trust(allow_code=False, relative_to=tmp_path)
    assert finished_summary(config, tmp_path / "run", trust) == before
    file = weights / "model.safetensors"
    state = safetensors.torch.load_file(file)
    state["visual_projection.weight"] *= 1.5  # another epoch, written into the same file
    safetensors.torch.save_file(state, file, metadata={"format": "pt"})
    assert finished_summary(config, tmp_path / "run", trust) is None
    after = run_here(config, tmp_path / "run").summary
    assert after.metrics[0].fingerprint != before.metrics[0].fingerprint
    assert after.metrics[0].value == pytest.approx(1.5**2 * before.metrics[0].value, rel=1e-4)


def test_published_moments_are_not_said_to_be_of_other_images(images, tmp_path):
    np.savez(tmp_path / "m.npz", mu=np.zeros(64), sigma=np.eye(64))
    large = tmp_path / "large"
    large.mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (128, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(large / f"{i}.png")
    config = images(
        references={"real": {"source": str(large), "limit": None, "moments": f"{tmp_path}/m.npz"}},
        features=["digits", {"name": "clip", "id": "package://evaluator/demo/weights/clip"}],
        metrics=["fd_digits", "kd_clip"],
    )
    by_moments, by_images, _ = run_here(config, tmp_path / "run").summary.metrics
    assert by_moments.value is not None
    about_images = ("kept by different codecs", "the resize is part of this number")
    assert not any(said in w for w in by_moments.warnings for said in about_images)
    assert any("reference images 128×128" in w for w in by_images.warnings)


def test_features_that_the_other_run_lacks_are_embedded_from_its_kept_images(images, tmp_path):
    bare = images(prompts={"limit": 90}, metrics=[], features=[], references=None)
    other = run_here(bare, tmp_path / "other").run.path
    assert not list(other.glob("shards/*/features-*"))
    config = images(references={"real": None, "model": {"run": str(other)}})
    found = only(run_here(config, tmp_path / "run")).value
    expected = frechet_distance_from_features(features_of(other), features_of(tmp_path / "run"))
    assert found == pytest.approx(expected, rel=1e-9)


def test_an_incomplete_run_is_no_reference(images, tmp_path):
    other = run_here(images(metrics=[], references=None), tmp_path / "other").run
    for file in other.shard_path(1).iterdir():
        file.unlink()
    other.shard_path(1).rmdir()
    config = images(references={"real": None, "model": {"run": str(other.path)}})
    with pytest.raises(InputError, match="expected a complete run to compare with, got 2 of 3"):
        run_here(config, tmp_path / "run")


def test_a_reference_is_embedded_only_with_what_is_compared(images, tmp_path, cache):
    config = images(
        features=["digits", {"name": "clip", "id": "package://evaluator/demo/weights/clip"}],
        references={"real": {"limit": 31}},
    )
    run = run_here(config, tmp_path / "run").run
    place = Asked.read(run).references["real"]
    assert place.run is not None
    assert list(place.fingerprints) == ["digits"]
    assert not list(Path(place.run).glob("shards/*/features-clip-*"))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"limit": 3}, "references.real: expected one of 'source', 'run' and 'moments', got none"),
        ({"source": "a", "run": "b"}, "expected 'source' or 'run', got both"),
    ],
)
def test_a_reference_is_one_thing(images, reference, message):
    with pytest.raises(ConfigError, match=message):
        images(references={"real": None, "other": None} | {"real": {"source": None, **reference}})


def test_groups_are_computed_from_their_own_samples_on_both_sides(images, tmp_path):
    config = images(metrics=[{"name": "fd_digits", "by": "background"}])
    outcome = run_here(config, tmp_path / "run")
    whole, *groups = outcome.summary.metrics
    assert whole.group is None
    source = pq.read_table("evaluator/demo/data/test.parquet", columns=["background"])
    backgrounds = np.array(source.column("background").to_pylist())
    assert [g.group for g in groups] == [
        {"background": value} for value in sorted({*backgrounds[:60]})
    ]
    generated = features_of(tmp_path / "run")
    place = Asked.read(outcome.run).references["real"]
    real = features_of(Path(str(place.run)))
    for group in groups:
        value = group.group["background"]
        assert group.n_expected == group.n == int((backgrounds[:60] == value).sum())
        expected = frechet_distance_from_features(
            generated[backgrounds[:60] == value], real[backgrounds[:150] == value]
        )
        assert group.value == pytest.approx(expected, rel=1e-8)
    assert sum(group.n for group in groups) == 60


def test_a_tag_that_no_prompt_has_is_said_beside_the_number(images, tmp_path):
    config = images(metrics=[{"name": "fd_digits", "by": "region"}])
    record = only(run_here(config, tmp_path / "run"))
    assert record.value is not None
    assert any("expected prompts with the tag 'region', got none" in w for w in record.warnings)


def test_a_group_too_small_for_a_number_says_so(images, tmp_path):
    config = images(prompts={"limit": 12}, metrics=[{"name": "prdc_digits", "by": "colour"}])
    outcome = run_here(config, tmp_path / "run")
    small = [record for record in outcome.summary.metrics if record.group]
    assert small
    assert all(record.value is None for record in small if record.n <= 5)
    assert any("expected more than k=5" in w for record in small for w in record.warnings)


def test_features_that_are_not_finite_are_refused_by_name(images, tmp_path):
    outcome = run_here(images(), tmp_path / "run")
    run, asked = outcome.run, Asked.read(outcome.run)
    (path,) = run.shard_path(1).glob("features-digits-*")
    table = pq.read_table(path)
    values = np.stack(table.column("features").to_numpy(zero_copy_only=False)).copy()
    values[3, 0] = np.nan
    import pyarrow as pa

    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    index = table.column_names.index("features")
    pq.write_table(table.set_column(index, table.schema.field("features"), flat), path)
    (record,) = aggregate(run, asked, world=World()).metrics
    key = run.plan.column("key").to_pylist()[28]
    assert record.value is None
    assert f"expected finite numbers, got NaN or infinity for {key}[0]" in record.warnings[0]


def test_images_of_another_size_than_the_reference_are_pointed_out(images, tmp_path):
    folder = tmp_path / "large"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(30):
        pixels = generator.integers(0, 256, (256, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    config = images(references={"real": {"source": str(folder), "limit": None}})
    record = only(run_here(config, tmp_path / "run"))
    assert any("32×32 pixels, reference images 256×200" in w for w in record.warnings)


def test_half_precision_storage_halves_the_table_and_is_in_the_fingerprint(images, tmp_path):
    full = run_here(images(), tmp_path / "full")
    half = run_here(images(features=[{"name": "digits", "storage": "float16"}]), tmp_path / "half")
    exact, rounded = features_of(tmp_path / "full"), features_of(tmp_path / "half")
    assert rounded.dtype == np.float16
    assert np.array_equal(exact.astype(np.float16), rounded)
    assert only(full).fingerprint != only(half).fingerprint
    assert only(half).value == pytest.approx(only(full).value, rel=1e-2)


def test_an_extractor_goes_by_the_name_that_the_configuration_gives_it(images, tmp_path):
    half = {"name": "half", "kind": "digits", "storage": "float16"}
    run_here(images(), tmp_path / "run")
    both = images(features=["digits", half], metrics=["fd_digits", "fd_half"])
    late = run_here(both, tmp_path / "run").summary.metrics
    together = run_here(both, tmp_path / "together").summary.metrics
    assert [metric.extractor for metric in late] == ["digits", "half"]
    assert [metric.value for metric in late] == [metric.value for metric in together]
    assert late[1].value == pytest.approx(late[0].value, rel=1e-2)
    for run in ("run", "together"):
        names = {path.name.split("-")[1] for path in (tmp_path / run).glob("shards/*/features-*")}
        assert names == {"digits", "half"}


def test_an_extractors_own_batch_size_is_its_own(images, tmp_path):
    own = images(features=[{"name": "digits", "batch_size": 7}])
    run_here(own, tmp_path / "own")
    run_here(images(runtime={"batch_size": 7}), tmp_path / "same")
    run_here(images(runtime={"batch_size": 3}), tmp_path / "late")
    late = images(features=[{"name": "digits", "batch_size": 7}], runtime={"batch_size": 3})
    for path in (tmp_path / "late").glob("shards/*/features-*"):
        path.unlink()
    run_here(late, tmp_path / "late")
    assert np.array_equal(features_of(tmp_path / "own"), features_of(tmp_path / "same"))
    assert np.array_equal(features_of(tmp_path / "own"), features_of(tmp_path / "late"))


def test_a_group_against_a_reference_without_its_tag_says_what_it_is_compared_with(
    images, tmp_path
):
    bare = tmp_path / "bare.parquet"
    table = pq.read_table("evaluator/demo/data/test.parquet").slice(0, 40)
    pq.write_table(table.drop_columns(["background"]), bare)
    np.savez(tmp_path / "m.npz", mu=np.zeros(64), sigma=np.eye(64))
    config = images(
        references={
            "real": {"source": str(bare), "limit": None},
            "published": {"moments": str(tmp_path / "m.npz")},
        },
        metrics=[
            {"name": "fd_digits", "by": "background", "reference": name}
            for name in ("real", "published")
        ],
    )
    records = run_here(config, tmp_path / "run").summary.metrics
    for name, said in (
        ("real", "the reference has no tag 'background': compared with all of its samples"),
        ("published", "published moments have no groups: compared with all of them"),
    ):
        whole, *groups = [r for r in records if r.reference and r.reference["name"] == name]
        assert said not in whole.warnings
        assert groups
        assert all(said in group.warnings for group in groups)


def test_metrics_json_keeps_the_groups(images, tmp_path):
    config = images(metrics=[{"name": "fd_digits", "by": "background"}])
    outcome = run_here(config, tmp_path / "run")
    record = json.loads((outcome.run.path / "metrics.json").read_text())
    assert [metric["group"] for metric in record["metrics"]] == [
        metric.group for metric in outcome.summary.metrics
    ]


def test_a_reference_of_moments_alone_serves_no_neighbour_metric(images, tmp_path):
    np.savez(tmp_path / "m.npz", mu=np.zeros(64), sigma=np.eye(64))
    config = images(
        references={"real": {"source": None, "limit": None, "moments": str(tmp_path / "m.npz")}},
        metrics=["prdc_digits"],
    )
    outcome = run_here(config, tmp_path / "run")
    assert all(record.value is None for record in outcome.summary.metrics)
    assert "got published moments only" in outcome.summary.metrics[0].warnings[0]


def test_missing_moments_are_missed_before_anything_is_computed(images, tmp_path):
    config = images(
        references={"real": {"source": None, "limit": None, "moments": str(tmp_path / "m.npz")}}
    )
    with pytest.raises(EvaluatorError, match="expected a file of moments"):
        run_here(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"mean": np.zeros(4), "cov": np.eye(4)},
            "expected the arrays mu and sigma, got cov, mean",
        ),
        ({"mu": np.zeros(4), "sigma": -np.eye(4)}, "expected a positive semidefinite matrix"),
    ],
)
def test_moments_that_are_none_are_refused_before_any_image(images, tmp_path, arrays, message):
    np.savez(tmp_path / "m.npz", **arrays)
    config = images(
        references={"real": {"source": None, "limit": None, "moments": str(tmp_path / "m.npz")}}
    )
    with pytest.raises(ConfigError, match=f"references.real: .*{message}"):
        describe_job(config, relative_to=tmp_path, allow_code=False)
    with pytest.raises(InputError, match=message):
        run_here(config, tmp_path / "run")
    assert not list((tmp_path / "run").glob("shards/*"))


def test_reference_images_that_cannot_be_read_are_counted_beside_the_number(images, tmp_path):
    folder = tmp_path / "real"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(20):
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    (folder / "20.png").write_bytes(b"not an image")
    config = images(references={"real": {"source": str(folder), "limit": None}})
    record = only(run_here(config, tmp_path / "run"))
    assert record.reference == {"name": "real", "n": 20}
    assert any("1 of 21 reference images could not be read" in w for w in record.warnings)


def test_an_option_that_an_extractor_does_not_take_is_named(images, tmp_path):
    config = images(features=[{"name": "digits", "options": {"devise": "cpu"}}])
    with pytest.raises(ConfigError, match="takes no option 'devise'; did you mean 'device'"):
        run_here(config, tmp_path / "run")


def test_a_metric_of_the_users_own_gives_its_number_beside_the_others(images, tmp_path):
    name = "tests.aggregate.custom_metrics:MeanShift"
    own = {"name": name, "extractor": "digits", "reference": "real", "scale": 2.0}
    config = images(metrics=[own])
    outcome = run_here(config, tmp_path / "run", allow_code=True)
    record = only(outcome)
    place = Asked.read(outcome.run).references["real"]
    assert place.run is not None
    reader = FeatureReader(RunDirectory.open(Path(place.run)), "digits", record.fingerprint)
    real = np.concatenate([rows.values for rows in reader.read("features", [0])])
    shift = features_of(tmp_path / "run").mean(0, float) - real.mean(0, float)
    assert not record.warnings
    assert record.value == pytest.approx(2.0 * np.linalg.norm(shift), rel=1e-9)
    assert (record.name, record.n, record.extractor) == ("mean_shift", 60, "digits")
    assert issubclass(MeanShift, SampleMetric)


def test_a_metric_of_the_users_own_that_fails_stops_no_other(images, tmp_path):
    code = "tests.aggregate.custom_metrics"
    own = [{"name": f"{code}:{name}", "extractor": "digits"} for name in ("BareNumber", "Broken")]
    config = images(metrics=[*own, "fd_digits"])
    bare, broken, whole = run_here(config, tmp_path / "run", allow_code=True).summary.metrics
    assert bare.value is None
    assert "expected compute() to return a tuple of evaluator.metrics.Result" in bare.warnings[0]
    assert broken.value is None
    assert broken.warnings == ["ValueError: a mistake in the metric"]
    assert whole.value is not None
