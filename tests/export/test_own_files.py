"""What an export may replace: what an export wrote, as it wrote it; else only when told to."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from evaluator.errors import ConfigError, StorageError
from evaluator.export.options import ExportOptions
from evaluator.export.own_files import RECORD, write_files
from evaluator.export.write import export_runs
from evaluator.runs import find_runs
from tests.small_runs import CONFIG, build_run

TARGETS = ("csv", "json", "parquet", "eval-results", "tensorboard")


def exported(run, target, folder, **options):
    """Where the files of an export are."""
    if target == "eval-results":
        options["dataset"] = "some-org/some-data"
    return export_runs(find_runs([run]), target, folder, ExportOptions(**options)).files


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_that_no_export_wrote_is_kept_unless_told_otherwise(small_run, tmp_path, target):
    *_, last = exported(small_run, target, tmp_path / "elsewhere")
    name = str(last.relative_to(tmp_path / "elsewhere"))
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    message = rf"^{re.escape(str(mine))}: expected no file, .*got one that no export wrote\. "
    with pytest.raises(ConfigError, match=message + r".*--output.*--overwrite\.$"):
        exported(small_run, target, tmp_path / "out")
    found = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert (found, mine.read_bytes()) == ([mine], b"mine")
    exported(small_run, target, tmp_path / "out", overwrite=True)
    assert mine.read_bytes() == last.read_bytes()


@pytest.mark.parametrize("target", TARGETS)
def test_an_older_export_is_replaced_even_where_it_was_moved(small_run, tmp_path, target):
    exported(small_run, target, tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    other = build_run(tmp_path / "run", offset=1.0).path
    record = json.loads((other / "metrics.json").read_bytes())
    record["metrics"][0]["value"] = 99.5
    (other / "metrics.json").write_text(json.dumps(record))
    fresh = exported(other, target, tmp_path / "fresh")
    for path in exported(other, target, tmp_path / "moved"):
        name = path.relative_to(tmp_path / "moved")
        assert path.read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    assert len(fresh) > 0


@pytest.mark.parametrize("target", ["eval-results", "tensorboard", "trackio"])
def test_another_run_of_the_same_name_is_not_replaced_unasked(tmp_path, monkeypatch, target):
    if target in ("tensorboard", "trackio"):
        pytest.importorskip(target, reason=f"NOT TESTED: {target}; pip install -e '.[test]'")
    first = build_run(tmp_path / "a" / "run", images=False).path
    monkeypatch.setitem(CONFIG, "generation", {"steps": 8, "guidance_scale": 3.0, "seed": 0})
    second = build_run(tmp_path / "b" / "run", images=False).path
    out = tmp_path / "out"
    paths = exported(first, target, out)
    before = [path.read_bytes() for path in paths]
    exported(first, target, out)
    message = r": expected no (file|run 'small' .*), or one of the run that is exported, got one "
    message += r"of another run of this name\. Export both at once, .*--output, .*: --overwrite\.$"
    with pytest.raises(ConfigError, match=message):
        exported(second, target, out)
    if target != "trackio":
        assert [path.read_bytes() for path in paths] == before
    else:
        assert '"steps":4' in configs_of(out / "evaluator.db")
    exported(second, target, out, overwrite=True)
    exported(second, target, out)
    with pytest.raises(ConfigError, match=message):
        exported(first, target, out)


def configs_of(database) -> str:
    """The settings of all runs in a database of trackio's."""
    with closing(sqlite3.connect(database)) as opened:
        return str(opened.execute("SELECT config FROM configs").fetchall())


def test_a_file_whose_record_does_not_say_of_which_run_it_is_is_replaced(tmp_path):
    write_files(tmp_path, {"a": b"1", "b": b"1"}, runs={"b": "B"})
    write_files(tmp_path, {"a": b"2"}, runs={"a": "A"})
    with pytest.raises(ConfigError, match=r"a: expected .* got one of another run of this name"):
        write_files(tmp_path, {"a": b"3"}, runs={"a": "other"})
    with pytest.raises(ConfigError, match=r"b: expected .* got one of another run of this name"):
        write_files(tmp_path, {"b": b"3"}, runs={"b": "other"})
    write_files(tmp_path, {"a": b"2"}, runs={"a": "other"})  # the same content is no loss


def test_a_file_that_was_changed_since_is_somebodys_work(tmp_path):
    write_files(tmp_path, {"a": b"1", "b/c": b"2"})
    (tmp_path / "b" / "c").write_bytes(b"corrected by hand")
    with pytest.raises(ConfigError, match=r"b/c: expected .* got one that was changed since\."):
        write_files(tmp_path, {"a": b"3", "b/c": b"4"})
    assert (tmp_path / "a").read_bytes() == b"1"
    (tmp_path / "a").write_bytes(b"by hand, too")
    with pytest.raises(ConfigError, match=r"a: .*changed since \(and 1 more such files\)\."):
        write_files(tmp_path, {"a": b"3", "b/c": b"4"})
    write_files(tmp_path, {"a": b"3", "b/c": b"4"}, overwrite=True)
    write_files(tmp_path, {"a": b"5"})
    assert (tmp_path / "a").read_bytes() == b"5"


def test_a_file_that_has_the_same_content_is_no_loss(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    assert write_files(tmp_path, {"a": b"1"}) == [tmp_path / "a"]


def test_what_several_targets_wrote_into_one_folder_is_known(tmp_path):
    write_files(tmp_path, {"a": b"1"})
    write_files(tmp_path, {"b": b"1"})
    write_files(tmp_path, {"a": b"2", "b": b"2"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b"2"


def test_what_an_interrupted_export_left_is_no_other_persons(tmp_path):
    write_files(tmp_path, {"a": b"1", "b": b"1"})
    for _ in range(2):
        with pytest.raises(StorageError, match="could not create"):
            write_files(tmp_path, {"a": b"2", "a/not-a-folder": b"2", "b": b"2"})
        assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"2", b"1"]
    (tmp_path / "b").write_bytes(b"by hand")
    with pytest.raises(ConfigError, match=r"b: .*changed since\."):
        write_files(tmp_path, {"a": b"3", "b": b"3"})
    (tmp_path / "b").write_bytes(b"1")
    write_files(tmp_path, {"a": b"3", "b": b"3"})
    assert [(tmp_path / name).read_bytes() for name in "ab"] == [b"3", b"3"]
    assert set(json.loads((tmp_path / RECORD).read_bytes())) == {"format", "written"}


def test_a_link_is_anothers_and_is_never_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    folder = tmp_path / "out"
    write_files(folder, {"a": b"1"})
    (folder / "a").unlink()
    (folder / "a").symlink_to(target)
    with pytest.raises(ConfigError, match="changed since"):
        write_files(folder, {"a": b"2"})
    write_files(folder, {"a": b"2"}, overwrite=True)
    assert (target.read_bytes(), (folder / "a").read_bytes()) == (b"precious", b"2")
    assert not (folder / "a").is_symlink()


def test_a_folder_of_a_files_name_is_refused_and_kept(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match="got one that no export wrote"):
        write_files(tmp_path, {"a": b"1"})
    with pytest.raises(StorageError, match=r"could not write .*a: Is a directory"):
        write_files(tmp_path, {"a": b"1"}, overwrite=True)


@pytest.mark.parametrize(
    "record", [b"", b"\xff", b"[]", b'{"written": 5}', b'{"written": {"a": 5}}', b"[" * 100_000]
)
def test_a_record_that_cannot_be_read_makes_nothing_ours(tmp_path, record):
    write_files(tmp_path, {"a": b"1"})
    (tmp_path / RECORD).write_bytes(record)
    with pytest.raises(ConfigError, match="expected no file"):
        write_files(tmp_path, {"a": b"2"})
    write_files(tmp_path, {"a": b"2"}, overwrite=True)
    write_files(tmp_path, {"a": b"3"})


@pytest.mark.parametrize("target", ["model-card", "wandb"])
def test_what_replaces_nothing_of_others_takes_no_leave_to_do_so(small_run, tmp_path, target):
    message = "--overwrite: expected with --to csv or json or .* or trackio, got --to"
    with pytest.raises(ConfigError, match=message):
        export_runs(find_runs([small_run]), target, tmp_path, ExportOptions(overwrite=True))


def test_wandbs_older_folder_of_the_same_run_is_replaced_and_others_stay(tmp_path):
    pytest.importorskip("wandb", reason="NOT TESTED: wandb; pip install -e '.[test]'")
    run = build_run(tmp_path / "run", images=False).path
    [first] = exported(run, "wandb", tmp_path / "out")
    other = first.with_name("offline-run-20260102_030405-abcdefgh")
    other.mkdir()
    [second] = exported(run, "wandb", tmp_path / "out")
    assert not first.exists()
    assert sorted(second.parent.glob("offline-run-*")) == sorted([other, second])
    assert second.parent.joinpath("latest-run").resolve() == second


def test_trackios_run_that_no_export_wrote_is_kept_unless_told_otherwise(tmp_path):
    pytest.importorskip("trackio", reason="NOT TESTED: trackio; pip install -e '.[test]'")
    out = tmp_path / "out"
    out.mkdir()
    code = (
        "import trackio\n"
        "run = trackio.init(project='p', name='small', embed=False,"
        " auto_log_gpu=False, auto_log_cpu=False)\n"
        "run.log({'mine': 7.0})\nrun.finish()\n"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(out), "HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, env=environment, timeout=100
    )
    run = build_run(tmp_path / "run", images=False).path
    message = r"out: expected no run 'small' in project 'p', .*got another's\. .*--overwrite\.$"
    with pytest.raises(ConfigError, match=message):
        exported(run, "trackio", out, project="p")
    database = sqlite3.connect(out / "p.db")

    def logged() -> str:
        return str(database.execute("SELECT metrics FROM metrics").fetchall())

    assert "mine" in logged()
    assert "fd_clip" not in logged()
    exported(run, "trackio", out, project="p", overwrite=True)
    assert logged().count('"fd_clip":') == 1
    assert "mine" not in logged()
    database.close()


@pytest.mark.parametrize("form", ["no database", "other tables", "other columns"])
def test_a_database_that_is_not_trackios_is_named_and_kept(tmp_path, form):
    pytest.importorskip("trackio", reason="NOT TESTED: trackio; pip install -e '.[test]'")
    path = tmp_path / "evaluator.db"
    if form == "no database":
        path.write_bytes(b"my own notes")
    else:
        with closing(sqlite3.connect(path)) as mine:
            mine.execute(f"CREATE TABLE {'notes' if form == 'other tables' else 'metrics'} (x)")
            mine.commit()
    before = path.read_bytes()
    run = build_run(tmp_path / "run", images=False).path
    message = r"evaluator\.db: expected no file, or a database of trackio's, got another's \(.*\)\."
    with pytest.raises(ConfigError, match=message + " Name another --project or --output, or move"):
        exported(run, "trackio", tmp_path)
    assert path.read_bytes() == before


def test_the_verb_says_what_it_would_replace_and_how_to_go_on(call, small_run, tmp_path):
    (tmp_path / "samples.csv").write_text("mine")
    ended = call("export", small_run, "--to", "csv", "--output", tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        f"error: {tmp_path}/samples.csv: expected no file, or one as an earlier export left it, got "
        "one that no export wrote. Name another folder by --output, or replace it: --overwrite.\n"
    )
    ended = call("export", small_run, "--to", "csv", "--output", tmp_path, "--overwrite")
    assert ended.status == 0
    assert call("export", small_run, "--to", "csv", "--output", tmp_path).status == 0
