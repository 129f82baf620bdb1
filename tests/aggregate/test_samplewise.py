"""What metrics say of single samples: tables that name the nearest training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluator.aggregate.asked import Asked
from evaluator.aggregate.moments import export_moments
from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import ct_score, memorized_fraction
from evaluator.store.schemas import table_note
from tests.aggregate.test_references import (  # noqa: F401 - fixtures
    cache,
    features_of,
    images,
    only,
)
from tests.runner.conftest import run_here

DIGITS = "package://evaluator/demo/data/test.parquet"


def test_copies_of_training_images_are_found_and_named(images, tmp_path):  # noqa: F811
    # the 60 images that are judged are the first 60 of the 150 of the reference
    config = images(metrics=["memorized_fraction_digits"])
    outcome = run_here(config, tmp_path / "run")
    fraction, generalization = outcome.summary.metrics
    assert (fraction.value, generalization.value) == (1.0, 0.0)
    assert fraction.interval is not None
    assert fraction.interval["low"] < 1.0  # 60 of 60 is no certainty
    table = pq.read_table(tmp_path / "run/metrics/memorized_fraction_digits.parquet")
    keys = outcome.run.plan.column("key").to_pylist()
    assert table.column("key").to_pylist() == keys
    assert table.column("nearest_key").to_pylist() == keys
    assert np.allclose(table.column("similarity").to_numpy(), 1.0)
    assert all(name for name in table.column("nearest_name").to_pylist())


def test_the_table_agrees_with_the_number(images, tmp_path):  # noqa: F811
    config = images(
        prompts={"limit": 40},
        references={"real": {"limit": 20}},
        metrics=[{"name": "memorized_fraction_digits", "threshold": 0.97}],
    )
    outcome = run_here(config, tmp_path / "run")
    place = Asked.read(outcome.run).references["real"]
    assert place.run is not None
    train, made = features_of(Path(place.run)), features_of(tmp_path / "run")
    expected = memorized_fraction(train, made, threshold=0.97)
    table = pq.read_table(tmp_path / "run/metrics/memorized_fraction_digits.parquet")
    assert outcome.summary.metrics[0].value == pytest.approx(expected)
    assert np.mean(table.column("similarity").to_numpy() > 0.97) == pytest.approx(expected)
    assert 0.0 < expected < 1.0


def test_a_mean_says_what_it_is_the_mean_of(images, tmp_path):  # noqa: F811
    captions = {"name": "clip", "id": "package://evaluator/demo/weights/clip"}
    config = images(
        prompts={"limit": 30}, references=None, features=[captions], metrics=["clip_score"]
    )
    outcome = run_here(config, tmp_path / "run")
    path = tmp_path / "run/metrics/clip_score.parquet"
    table, (mean,) = pq.read_table(path), table_note(path)["means"].values()
    assert mean == {"column": "score", "factor": 1.0, "offset": 0.0}
    scores = table.column("score").to_numpy()
    assert only(outcome).value == pytest.approx(scores.mean(), rel=1e-12)
    cosines = pq.read_table(sorted((tmp_path / "run").glob("shards/*/features-clip-*"))[0])
    assert scores[:25].tolist() == (100.0 * cosines.column("text_cosine").to_numpy()).tolist()
    assert table.column("key").to_pylist() == outcome.run.plan.column("key").to_pylist()


def test_two_runs_are_paired_by_key_wherever_it_stands_in_their_plans(images, tmp_path):  # noqa: F811
    other = run_here(images(prompts={"limit": 90}, metrics=[], references=None), tmp_path / "other")
    config = images(
        references={"real": None, "model": {"run": str(other.run.path)}},
        metrics=["rp_score_digits"],
    )
    record = only(run_here(config, tmp_path / "run"))
    assert (record.value, record.n) == (1.0, 60)
    assert any("30" in warning for warning in record.warnings)


def test_moments_that_were_written_are_a_reference(images, tmp_path):  # noqa: F811
    first = run_here(images(prompts={"limit": 150}, metrics=[], references=None), tmp_path / "real")
    written = export_moments(first.run, tmp_path / "real.npz")
    assert (written.n, written.extractor) == (150, "digits")
    config = images(
        references={"real": {"source": None, "limit": None, "moments": str(tmp_path / "real.npz")}}
    )
    by_moments = only(run_here(config, tmp_path / "run"))
    by_images = only(run_here(images(), tmp_path / "run"))
    assert by_moments.value == pytest.approx(by_images.value, rel=1e-9)
    assert by_moments.reference == {"name": "real", "n": 150}
    with np.load(tmp_path / "real.npz") as arrays:
        assert np.allclose(arrays["mu"], features_of(tmp_path / "real").mean(axis=0))


def test_moments_of_another_extractor_are_refused(images, tmp_path):  # noqa: F811
    clip = {"name": "clip", "id": "package://evaluator/demo/weights/clip"}
    other = images(metrics=[], references=None, features=[clip])
    export_moments(run_here(other, tmp_path / "other").run, tmp_path / "other.npz")
    config = images(
        references={"real": {"source": None, "limit": None, "moments": str(tmp_path / "other.npz")}}
    )
    record = only(run_here(config, tmp_path / "run"))
    assert record.value is None
    assert "expected moments of the run's 'digits' (fingerprint" in record.warnings[0]


@pytest.mark.parametrize(
    ("made", "judged", "differ"),
    [
        ({"runtime": {"images": "webp:80"}}, {"runtime": {"images": "webp:80"}}, False),
        ({"runtime": {"images": "png"}}, {"runtime": {"images": "webp:80"}}, True),
        ({"features": [{"name": "digits", "storage": "float16"}]}, {}, True),
    ],
)
def test_moments_of_one_extractor_serve_whatever_codec(images, tmp_path, made, judged, differ):  # noqa: F811
    run = run_here(images(metrics=[], references=None, **made), tmp_path / "made").run
    export_moments(run, tmp_path / "m.npz")
    published = {"source": None, "limit": None, "moments": str(tmp_path / "m.npz")}
    record = only(run_here(images(references={"real": published}, **judged), tmp_path / "run"))
    assert record.value == pytest.approx(0.0, abs=0.5)  # of the same 60 images; FD there is tens
    assert any("kept by different codecs" in warning for warning in record.warnings) == differ


def test_a_metric_that_is_asked_for_no_more_leaves_no_table(images, tmp_path):  # noqa: F811
    run_here(images(metrics=["memorized_fraction_digits", "realism_digits"]), tmp_path / "run")
    run_here(images(metrics=["realism_digits"]), tmp_path / "run")
    assert [path.stem for path in (tmp_path / "run/metrics").iterdir()] == ["realism_digits"]


def test_a_subsampled_reference_takes_its_images_though_moments_are_there(images, tmp_path):  # noqa: F811
    np.savez(tmp_path / "m.npz", mu=np.full(64, 9.0), sigma=np.eye(64))
    infinity = {"name": "fd_infinity_digits", "subsample_reference": True, "num_points": 3}
    both = {"real": {"moments": str(tmp_path / "m.npz")}}
    mixed = run_here(images(references=both, metrics=[infinity, "fd_digits"]), tmp_path / "run")
    by_images, by_moments = mixed.summary.metrics
    assert by_images.reference == {"name": "real", "n": 150}
    assert by_images.value == only(run_here(images(metrics=[infinity]), tmp_path / "b")).value
    assert by_moments.value > 9.0**2


def test_what_is_known_of_the_held_out_images_is_said(images, tmp_path):  # noqa: F811
    unseen = tmp_path / "unseen"
    unseen.mkdir()
    for i in range(30):
        pixels = np.random.default_rng(i).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(unseen / f"{i}.png")
    (unseen / "broken.png").write_bytes(b"\x89PNG nothing")
    config = images(
        references={"real": {"limit": 150}, "unseen": {"source": str(unseen)}},
        metrics=[
            {"name": "ct_digits", "reference": "real", "held_out": "unseen", "by": "background"}
        ],
    )
    whole, *groups = run_here(config, tmp_path / "run").summary.metrics
    said = [warning for warning in whole.warnings if warning.startswith("held-out set 'unseen': ")]
    assert "1 of 31 reference images could not be read" in said[0]
    assert "reference images 96×96" in said[1]
    assert len(groups) > 1
    unknown = "the held-out set has no tag 'background': compared with all of its samples"
    assert all(unknown in group.warnings for group in groups if group.value is not None)


def test_moments_of_a_part_are_not_written(images, tmp_path):  # noqa: F811
    run = run_here(images(metrics=[], references=None), tmp_path / "run").run
    for file in run.shard_path(2).iterdir():
        file.unlink()
    run.shard_path(2).rmdir()
    with pytest.raises(MetricError, match="expected all 3 shards, got 2"):
        export_moments(run, tmp_path / "m.npz")


def test_moments_that_do_not_say_what_they_are_of_are_taken_with_a_warning(images, tmp_path):  # noqa: F811
    run_here(images(prompts={"limit": 150}, metrics=[], references=None), tmp_path / "real")
    real = features_of(tmp_path / "real").astype(np.float64)
    np.savez(tmp_path / "m.npz", mu=real.mean(axis=0), sigma=np.cov(real, rowvar=False))
    config = images(references={"real": {"moments": str(tmp_path / "m.npz")}})
    outcome = run_here(config, tmp_path / "run")
    record = only(outcome)
    assert record.value == pytest.approx(only(run_here(images(), tmp_path / "other")).value, 1e-9)
    assert any("m.npz does not say what it was computed with" in w for w in record.warnings)
    assert Asked.read(outcome.run).references["real"].run is None, "no image was embedded for it"


def test_a_held_out_set_is_a_second_reference(images, tmp_path):  # noqa: F811
    run_here(images(prompts={"limit": 220}, metrics=[], references=None), tmp_path / "all")
    every = features_of(tmp_path / "all")
    config = images(
        references={"real": {"limit": 150}, "unseen": {"source": DIGITS, "limit": 90}},
        metrics=[{"name": "ct_digits", "reference": "real", "held_out": "unseen"}],
    )
    record = only(run_here(config, tmp_path / "run"))
    expected = ct_score(every[:150], every[:90], every[:60])
    assert record.value == pytest.approx(expected, rel=1e-9)
    assert record.reference == {"name": "real", "n": 150, "held_out": "unseen"}


def test_a_metric_that_needs_a_held_out_set_says_so(images, tmp_path):  # noqa: F811
    with pytest.raises(ConfigError, match="expected a reference's name as 'held_out', got none"):
        run_here(images(metrics=["fls_digits"]), tmp_path / "run")


def test_a_metric_against_two_references_leaves_a_table_for_each(images, tmp_path):  # noqa: F811
    name = "memorized_fraction_digits"
    some = {"name": name, "reference": "some", "threshold": 0.97}
    config = images(
        prompts={"limit": 40},
        references={"real": {"limit": 20}, "some": {"source": DIGITS, "limit": 30}},
        metrics=[{**some, "reference": "real"}, some, {**some, "threshold": 0.995}],
    )
    records = run_here(config, tmp_path / "run").summary.metrics[::2]
    tables = sorted((tmp_path / "run/metrics").iterdir())
    assert [path.stem for path in tables] == [
        f"{name}-{end}" for end in ("real", "some-1", "some-2")
    ]
    assert len({record.value for record in records}) == 3
    for record, path in zip(records, tables, strict=True):
        rows = pq.read_table(path).column("memorized").to_numpy()
        assert np.mean(rows) == pytest.approx(record.value)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("kd_digits", "compares with no held-out set, got held_out: real; remove it"),
        ("ct_digits", "expected one under 'references' beside the held-out set"),
    ],
)
def test_a_held_out_set_is_no_other_reference(images, tmp_path, metric, message):  # noqa: F811
    config = images(metrics=[{"name": metric, "held_out": "real"}])
    with pytest.raises(ConfigError) as error:
        run_here(config, tmp_path / "run")
    assert message in str(error.value)
