"""The run directory: published once, committed by renaming, checked when read."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluator.durable import explained_in_run, publish_directory, publish_file, write_atomically
from evaluator.errors import CorruptShardError, NewerTableError, RunDirectoryError, StorageError
from evaluator.store import schemas
from evaluator.store.quarantine import set_apart_shard
from evaluator.store.rundir import RunDirectory
from tests.waiting import PATIENCE, running


def plan(num_samples: int, per_shard: int) -> pa.Table:
    rows = range(num_samples)
    return pa.table(
        [
            pa.array([i // per_shard for i in rows], pa.int32()),
            pa.array([f"k{i:03d}" for i in rows]),
            pa.array([0] * num_samples, pa.int32()),
            pa.array(list(rows), pa.int64()),
            pa.array(["c"] * num_samples),
        ],
        schema=schemas.PLAN,
    )


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", {"config.yaml": b"a: 1"}, plan(10, 4))


def commit(run: RunDirectory, index: int, content: str = "x") -> bool:
    staged = run.stage(f"{index:05d}.0")
    rows = len(run.shard(index).samples)
    table = pa.table({"key": [content] * rows, "image_index": pa.array([0] * rows, pa.int32())})
    schemas.write_table(table, staged / "samples.parquet", kind="samples")
    return run.publish_shard(index, staged, {"samples.parquet": rows})


def test_shards_are_slices_of_the_plan(run: RunDirectory) -> None:
    assert run.num_shards == 3
    assert [sample.key for sample in run.shard(2).samples] == ["k008", "k009"]
    assert run.shard(1).samples[0].position == 4
    assert run.shard(0).name == "00000"


def test_the_first_init_stands(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "run", {"config.yaml": b"first"}, plan(3, 2))
    second = RunDirectory.create(tmp_path / "run", {"config.yaml": b"second"}, plan(3, 2))
    assert second.init_file("config.yaml") == b"first"
    assert list((tmp_path / "run" / "staging").iterdir()) == []


def test_a_folder_with_other_files_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(RunDirectoryError, match="other files"):
        RunDirectory.create(tmp_path, {}, plan(1, 1))
    with pytest.raises(RunDirectoryError, match="expected a run directory"):
        RunDirectory.open(tmp_path)


def test_what_is_no_run_is_called_what_it_is(run: RunDirectory, tmp_path: Path) -> None:
    file = run.path.parent / "a.yaml"
    file.write_text("name: a")
    with pytest.raises(RunDirectoryError, match=r"a\.yaml: expected a run.*, got a configuration"):
        RunDirectory.open(file)
    with pytest.raises(RunDirectoryError, match=r"a\.txt: expected a run.*, got a file\."):
        RunDirectory.open(file.rename(file.with_suffix(".txt")))
    with pytest.raises(
        RunDirectoryError, match=rf"a folder with 1 of them \({run.path.name}\)\. Name one"
    ):
        RunDirectory.open(run.path.parent)


def test_the_first_commit_wins_and_the_loser_leaves_nothing(run: RunDirectory) -> None:
    assert commit(run, 1, "first")
    assert not commit(run, 1, "second")
    assert run.committed() == [1]
    table = run.read(1, "samples.parquet", kind="samples")
    assert table.column("key").to_pylist() == ["first"] * 4
    assert list((run.path / "staging").iterdir()) == []


def test_what_is_staged_is_never_read(run: RunDirectory) -> None:
    (run.stage("00000.0") / "samples.parquet").write_bytes(b"half")
    assert run.committed() == []
    assert not list((run.path / "shards").glob("**/*.parquet"))


def test_a_late_table_of_a_shard_set_apart_meanwhile_is_dropped(run: RunDirectory) -> None:
    staged = run.stage("late") / "features-clip-abcdef01.parquet"
    staged.write_bytes(b"table")
    assert not run.publish_late_table(0, staged), "never committed, or not any more"
    assert list((run.path / "staging").iterdir()) == []
    staged = run.stage("late") / "features-clip-abcdef01.parquet"
    staged.write_bytes(b"table")
    (run.path / "shards").rename(run.path / "gone")
    with pytest.raises(StorageError, match="vanished"):
        run.publish_late_table(0, staged)


def test_what_was_committed_is_spoken_of_in_a_run_alone(tmp_path: Path) -> None:
    place = tmp_path / "gone" / "file"
    with pytest.raises(StorageError, match="Everything committed so far is kept; it or the"):
        write_atomically(place, b"", in_run=True)
    with pytest.raises(
        StorageError, match=r"No such file or directory\. Check the path: the folder"
    ):
        write_atomically(place, b"")
    with pytest.raises(StorageError, match=r"Is a directory\. Name a file"):
        write_atomically(tmp_path, b"")


def test_a_plan_that_is_lost_or_damaged_is_said_with_the_remedy(run: RunDirectory) -> None:
    plan = run.path / "init" / "plan.parquet"
    content = plan.read_bytes()
    plan.unlink()
    opened = RunDirectory.open(run.path)
    for ask in (lambda: opened.plan, lambda: opened.num_samples, lambda: opened.plan_column("key")):
        with pytest.raises(StorageError, match=r"plan\.parquet.*and that a copy is whole"):
            ask()
    plan.write_bytes(content[:50])
    with pytest.raises(CorruptShardError, match="Copy init/ from where the run was made"):
        RunDirectory.open(run.path).plan_column("key")


def test_a_late_table_is_linked_once(run: RunDirectory) -> None:
    commit(run, 0)
    for content, won in (("first", True), ("second", False)):
        staged = run.stage("late") / "features-x-00000000.parquet"
        schemas.write_table(pa.table({"v": [content]}), staged, kind="features")
        assert run.publish_late_table(0, staged) is won
    found = pq.read_table(run.shard_path(0) / "features-x-00000000.parquet")
    assert found.column("v").to_pylist() == ["first"]


def test_verify_finds_a_changed_file(run: RunDirectory) -> None:
    commit(run, 0)
    run.verify(0)
    path = run.shard_path(0) / "samples.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(CorruptShardError, match="expected SHA-256"):
        run.verify(0)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_table_is_found_when_it_is_read(run: RunDirectory, damage: str) -> None:
    commit(run, 0)
    path = run.shard_path(0) / "samples.parquet"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[20] ^= 0xFF
    else:
        content = bytearray()
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptShardError, match="samples"):
        run.read(0, "samples.parquet", kind="samples")


def test_a_shard_of_a_newer_evaluator_is_refused_and_never_made_again(run: RunDirectory) -> None:
    assert commit(run, 0)
    record = run.shard_path(0) / "commit.json"
    record.write_text(record.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(NewerTableError, match=r"format 1 or older, got 9.*use that one\.$"):
        run.files(0).require_never_there("other.parquet")
    assert run.files(0).damage() == {}
    assert not set_apart_shard(run, 0)
    assert run.committed() == [0]


def test_a_table_of_a_newer_evaluator_is_not_said_to_be_damaged(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(schemas, "VERSION", schemas.VERSION + 1)
        assert commit(run, 0)
    with pytest.raises(NewerTableError, match=r"or older, got .*use that one\.$"):
        run.read(0, "samples.parquet", kind="samples")
    assert run.files(0).fault_of_table("samples.parquet") is None


def test_a_table_of_another_kind_or_newer_version_is_refused(run: RunDirectory) -> None:
    commit(run, 0)
    with pytest.raises(CorruptShardError, match="expected a table 'latents'"):
        run.read(0, "samples.parquet", kind="latents")


def test_a_table_short_of_rows_is_refused(run: RunDirectory) -> None:
    staged = run.stage("00000.0")
    schemas.write_table(pa.table({"key": ["a"]}), staged / "samples.parquet", kind="samples")
    run.publish_shard(0, staged, {"samples.parquet": 1})
    with pytest.raises(CorruptShardError, match="expected 4 rows as planned, got 1"):
        run.read(0, "samples.parquet", kind="samples")


def test_commit_json_leaves_out_what_may_differ(run: RunDirectory) -> None:
    staged = run.stage("00000.0")
    for name in ("samples.parquet", "timings.parquet"):
        schemas.write_table(pa.table({"key": ["a"] * 4}), staged / name, kind=name[:-8])
    run.publish_shard(0, staged, {"samples.parquet": 4, "timings.parquet": 4})
    record = json.loads((run.shard_path(0) / "commit.json").read_text())
    assert record["rows"] == {"samples.parquet": 4, "timings.parquet": 4}
    assert list(record["sha256"]) == ["samples.parquet"]


def test_tables_are_written_byte_for_byte_alike(tmp_path: Path) -> None:
    table = pa.table({"key": ["a", "b"] * 500, "v": pa.array(range(1000), pa.float32())})
    for name in ("a", "b"):
        schemas.write_table(table, tmp_path / name, kind="t", metadata={"x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_full_disk_is_said_with_its_remedy(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"No space left.*committed so far is kept; free some"),
        explained_in_run("write", tmp_path),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failed_atomic_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, 3)  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_publishing_into_a_vanished_folder_is_an_error_not_a_loss(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / "file").write_text("x")
    with pytest.raises(StorageError, match="vanished"):
        publish_directory(staged, tmp_path / "gone" / "final")
    assert (staged / "file").exists()
    shutil.copy(staged / "file", tmp_path / "aside")
    assert publish_file(tmp_path / "aside", tmp_path / "final")


def _create(path: str, name: bytes, begin: Barrier) -> None:
    begin.wait(PATIENCE)
    RunDirectory.create(Path(path), {"config.yaml": name}, plan(500, 10))


def test_workers_that_start_together_agree_on_one_init(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(12)
    workers = [
        context.Process(target=_create, args=(str(tmp_path / "run"), b"%d" % i, begin))
        for i in range(12)
    ]
    with running(workers):
        pass
    run = RunDirectory.open(tmp_path / "run")
    assert run.num_samples == 500
    assert list((run.path / "staging").iterdir()) == []
