"""A run read from Python: its tables, numbers, images, and what it says of itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

import evaluator
from evaluator import open_run
from evaluator.aggregate.summary import MetricRecord
from evaluator.errors import CorruptShardError, InputError, RunDirectoryError
from evaluator.runs import find_runs
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory
from tests.small_runs import FAILED, FINGERPRINT, METRICS, PROMPTS, build_run, position


def test_tables_of_all_shards_come_in_the_order_of_the_plan(small_run):
    run = open_run(small_run)
    assert len(run) == run.num_planned == 12
    assert run.complete
    order = [position(i) for i in range(12)]
    for table in (run.plan, run.samples, run.scored_samples, run.features("clip"), run.latents):
        pairs = zip(*(table.column(n).to_pylist() for n in ("key", "image_index")), strict=True)
        assert list(pairs) == order
    assert run.samples.column("prompt").to_pylist()[::2] == list(PROMPTS)
    assert run.tables == ("attention", "latents", "samples", "timings")
    assert run.timings.num_rows == 3
    assert run.schedule.column("step").to_pylist() == [0, 1]


def test_half_precision_comes_as_float32(small_run):
    table = open_run(small_run).attention
    assert table.schema.field("mass").type == pa.float32()
    assert table.schema.field("map").type == pa.list_(pa.float32())
    assert table.column("mass").to_pylist()[:2] == [0.125, 0.375]


def test_single_columns_of_a_large_table_can_be_read(small_run):
    run = open_run(small_run)
    assert run.table("attention", columns=["step", "mass"]).column_names == ["step", "mass"]
    assert run.table("samples", columns=["flaw"]).column_names == ["flaw"]
    with pytest.raises(InputError, match=r"attention\.parquet, got 'mas'.*Did you mean 'mass'"):
        run.table("attention", columns=["key", "mas"])


def test_features_are_vectors_that_are_null_where_the_sample_failed(small_run):
    run = open_run(small_run)
    table = run.features("clip")
    vectors = np.stack(table.column("features").drop_null().to_numpy())
    assert vectors.shape == (11, 3)
    assert vectors[:, 0].tolist() == [i for i in range(12) if i != FAILED]
    assert not table.column("features")[FAILED].is_valid
    note = json.loads(table.schema.metadata[b"evaluator.schema"])
    assert note["fingerprint"] == FINGERPRINT
    assert run.extractors == {"clip": (FINGERPRINT[:8],)}


def test_scores_are_joined_to_the_samples_that_they_are_about(small_run):
    run = open_run(small_run)
    scored = run.scored_samples
    cosines = scored.column("clip.text_cosine").to_pylist()
    assert cosines == [None if i == FAILED else 0.25 + i / 64 for i in range(12)]
    realism = scored.column("realism").to_pylist()
    assert realism == [None if i in (FAILED, 6, 7) else 0.5 + i / 16 for i in range(12)]
    assert run.scored == ("realism",)
    assert run.scores("realism").num_rows == 9


def test_metrics_are_the_dataclasses_of_the_file(small_run):
    metrics = open_run(small_run).metrics
    assert all(isinstance(metric, MetricRecord) for metric in metrics)
    assert [(metric.name, metric.value) for metric in metrics] == [
        (record["name"], record["value"]) for record in METRICS
    ]
    assert metrics[2].group == {"region": "=x <i>"}


def test_images_are_those_of_the_samples(small_run):
    run = open_run(small_run)
    found = list(run.images())
    assert [(key, index) for key, index, _ in found] == [
        position(i) for i in range(12) if i != FAILED
    ]
    assert run.image("k03", 1).getpixel((0, 0)) == (70, 185, 128)
    assert found[0].image.getpixel((7, 7)) == (0, 255, 128)


def test_errors_are_the_samples_without_an_image(small_run):
    rows = open_run(small_run).errors.to_pylist()
    assert [(row["key"], row["image_index"], row["error"]) for row in rows] == [
        (*position(FAILED), "the prompt is <empty>")
    ]


def test_settings_and_provenance_are_as_they_were_written(small_run):
    run = open_run(small_run)
    assert run.config["generation"]["steps"] == 4
    assert run.provenance["model"]["revision"] == "b" * 40


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda r: r.features("clpi"), InputError, "'clpi'; there are clip.*Did you mean 'clip'"),
        (lambda r: r.features("clip", fingerprint="ff"), InputError, "got 0 for fingerprint ff"),
        (lambda r: r.table("atention"), InputError, "there are attention, .*mean 'attention'"),
        (lambda r: r.scores("relism"), InputError, "there are realism. Did you mean 'realism'"),
        (lambda r: r.image("k99"), InputError, "got key 'k99' with image index 0"),
        (lambda r: r.image("k02", 1), InputError, "got none: its shard .* or the sample has an"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(small_run, ask, error, message):
    with pytest.raises(error, match=message):
        ask(open_run(small_run))


def test_two_fingerprints_of_one_extractor_are_told_apart_by_what_the_metrics_used(tmp_path):
    directory = build_run(tmp_path / "run")
    other = "f" * 64
    for index in directory.committed():
        table = directory.read(index, f"features-clip-{FINGERPRINT[:8]}.parquet", kind="features")
        target = directory.shard_path(index) / schemas.features_name("clip", other)
        schemas.write_table(table, target, kind="features", metadata={"fingerprint": other})
    run = open_run(tmp_path / "run")
    assert run.extractors == {"clip": (FINGERPRINT[:8], "f" * 8)}
    assert FINGERPRINT.encode() in run.features("clip").schema.metadata[b"evaluator.schema"]
    note = run.features("clip", fingerprint="ffff").schema.metadata[b"evaluator.schema"]
    assert other.encode() in note
    assert "clip-ffffffff.text_cosine" in run.scored_samples.column_names
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(InputError, match="got 2 of fingerprint any; there are 01234567, ffffffff"):
        open_run(tmp_path / "run").features("clip")


def test_an_incomplete_run_gives_what_is_there(tmp_path):
    build_run(tmp_path / "run", missing=[1])
    run = open_run(tmp_path / "run")
    assert not run.complete
    assert (len(run), run.num_planned, run.samples.num_rows) == (8, 12, 8)
    assert run.samples.column("key").to_pylist() == [
        position(i)[0] for i in range(12) if i // 4 != 1
    ]
    assert "8 of 12 samples (incomplete)" in repr(run)
    with pytest.raises(InputError, match="expected a noise schedule, got none"):
        _ = run.schedule


def test_a_run_without_any_shard_is_empty_and_says_so(tmp_path):
    build_run(tmp_path / "run", missing=[0, 1, 2], metrics=False)
    run = open_run(tmp_path / "run")
    assert (len(run), bool(run), run.samples.num_rows) == (0, True, 0)
    assert run.samples.schema == schemas.SAMPLES
    assert "0 of 12 samples" in repr(run)
    assert run.scored_samples.num_rows == 0
    with pytest.raises(InputError, match="there are none"):
        run.features("clip")


def test_a_run_without_numbers_says_how_to_get_them(tmp_path):
    build_run(tmp_path / "run", metrics=False)
    run = open_run(tmp_path / "run")
    with pytest.raises(RunDirectoryError, match="got no such file: .*`evaluator aggregate RUN`"):
        _ = run.metrics
    assert "expected numbers, got no such file" in repr(run)
    assert run.features("clip").num_rows == 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "got a file that cannot be read"),
        ("[]", "got a file that does not hold them"),
        ('{"format": 99}', "expected format 1 or older, got 99"),
    ],
)
def test_broken_numbers_are_refused_plainly(tmp_path, content, message):
    build_run(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=message):
        _ = open_run(tmp_path / "run").metrics


@pytest.mark.parametrize("content", ["{", "- a", "model: {kind: newer}"])
@pytest.mark.parametrize("words", [["schedule"], ["probe", "anatomy"], ["probe", "denoise"]])
def test_a_run_whose_settings_cannot_be_read_is_said_by_verbs_that_need_them(
    tmp_path, call, words, content
):
    build_run(tmp_path / "run")
    config = tmp_path / "run" / "init" / "config.yaml"
    config.unlink()
    config.write_text(content)
    ended = call(*words, tmp_path / "run")
    assert ended.status == 2
    assert "expected" in ended.err


def test_images_that_are_lost_are_not_taken_for_images_that_were_not_kept(tmp_path):
    directory = build_run(tmp_path / "run")
    for index in directory.committed():
        (directory.shard_path(index) / "images.tar").unlink()
    run = open_run(tmp_path / "run")
    with pytest.raises(CorruptShardError, match=r"images\.tar: expected a file that was committed"):
        list(run.images())
    with pytest.raises(CorruptShardError, match="status RUN --verify"):
        run.image(*position(0))


def test_a_run_without_images_says_how_to_keep_them(tmp_path):
    build_run(tmp_path / "run", images=False)
    run = open_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"expected kept images, got none.*runtime\.images: png"):
        list(run.images())
    with pytest.raises(InputError, match="expected kept images, got none"):
        run.image("k00")


def test_a_table_that_was_committed_and_is_lost_is_no_smaller_table(tmp_path):
    build_run(tmp_path / "run")
    (tmp_path / "run" / "shards" / "00001" / "latents.parquet").unlink()
    with pytest.raises(CorruptShardError, match=r"latents\.parquet.*status RUN --verify"):
        _ = open_run(tmp_path / "run").latents


def test_a_repr_is_one_screen_of_plain_text(hostile_run):
    text = repr(open_run(hostile_run))
    assert len(text.splitlines()) < 30
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "12 of 12 samples (complete)" in text
    assert "fd_clip ↓" in text
    assert "11.500 – 13.250" in text
    assert "! fd_clip: 11 samples: below 10,000" in text


def test_html_for_notebooks_is_escaped(hostile_run):
    html = open_run(hostile_run)._repr_html_()
    for markup in ("<script", "<b>", "<i>", "\x1b"):
        assert markup not in html
    assert "&lt;script&gt;" in html
    assert "<td>11.500 – 13.250</td>" in html
    assert "<li>fd_clip: &lt;b&gt;biased&lt;/b&gt;</li>" in html


def test_two_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    for folder in ("a", "b"):
        build_run(tmp_path / folder)
    build_run(tmp_path / "c", name="another")
    (tmp_path / "no-run").mkdir()
    assert list(find_runs([tmp_path])) == ["a", "b", "another"]
    assert list(find_runs([tmp_path / "b", tmp_path / "b", tmp_path / "c"])) == ["small", "another"]
    with pytest.raises(RunDirectoryError, match="got a folder without any"):
        find_runs([tmp_path / "no-run"])
    with pytest.raises(RunDirectoryError, match="got nothing there"):
        find_runs([tmp_path / "nothing"])


def test_opening_reads_no_shard(tmp_path):
    build_run(tmp_path / "run")
    for file in (tmp_path / "run" / "shards").rglob("*.parquet"):
        file.write_bytes(b"")
    run = open_run(tmp_path / "run")
    assert len(run) == 12
    assert "fd_clip" in repr(run)
    with pytest.raises(CorruptShardError, match="damaged file"):
        _ = run.samples


def test_a_moved_run_is_the_same_run(small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "copy")
    assert open_run(tmp_path / "copy").scored_samples.equals(open_run(small_run).scored_samples)
    assert isinstance(open_run(str(small_run)).directory, RunDirectory)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, evaluator; assert 'open_run' in dir(evaluator)\n"
        "print(sorted({'pyarrow', 'numpy', 'torch', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_name_that_the_package_does_not_offer_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'opne_run'"):
        _ = evaluator.opne_run
