"""A run in a remote store: whole shards only, checked both ways, the same command again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from evaluator.errors import InputError, RunDirectoryError, StorageError
from evaluator.remote import RemotePath
from evaluator.store import schemas
from evaluator.store.mirror import read_manifest, remote_run
from evaluator.store.pull import pull_run
from evaluator.store.push import push_run
from evaluator.store.quarantine import set_apart_shard
from evaluator.store.rundir import RunDirectory
from tests.store.test_rundir import commit, plan
from tests.stores import delete
from tests.waiting import PATIENCE, beside

NUM_SHARDS = 6


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    init = {"config.yaml": b"name: x", "provenance.json": b'{"a": 1}'}
    made = RunDirectory.create(tmp_path / "run", init, plan(4 * NUM_SHARDS, 4))
    (made.path / "claims" / "00000.0").write_text("mine")
    (made.path / "staging" / "00005.0").mkdir()
    return made


@pytest.fixture
def finished(run: RunDirectory) -> RunDirectory:
    for index in range(NUM_SHARDS):
        commit(run, index, f"shard {index}")
    run.write("metrics.json", b'{"fid": 1}')
    (run.path / "report" / "images").mkdir(parents=True)
    (run.path / "report" / "images" / "a.png").write_bytes(b"picture")
    return run


def tree(path: Path) -> dict[str, bytes]:
    """Every file that a mirror has, by its name."""
    return {
        name: file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and (name := file.relative_to(path).as_posix()).partition("/")[0]
        not in ("claims", "staging")
    }


def put_back(store: RemotePath, name: str, content: bytes) -> None:
    (store / name).write_bytes(content)


def test_a_run_comes_back_as_it_was(finished, store, tmp_path: Path) -> None:
    pushed = push_run(finished, store)
    assert (pushed.num_shards, pushed.exit_status, pushed.faults) == (NUM_SHARDS, 0, ())
    assert not [name for name in store.files() if name.startswith(("claims", "staging"))]
    pulled = pull_run(store, tmp_path / "copy")
    assert (pulled.num_shards, pulled.exit_status) == (NUM_SHARDS, 0)
    assert tree(tmp_path / "copy") == tree(finished.path)
    assert pushed.num_bytes == sum(len(content) for content in tree(finished.path).values())
    copy = RunDirectory.open(tmp_path / "copy")
    for index in range(NUM_SHARDS):
        copy.verify(index)


def test_a_second_push_and_pull_copy_nothing(finished, store, tmp_path: Path) -> None:
    push_run(finished, store)
    pull_run(store, tmp_path / "copy")
    assert push_run(finished, store).num_files == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "copy" / "shards").rglob("*")}
    assert pull_run(store, tmp_path / "copy").num_files == 3  # init, to compare it
    assert before == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "copy" / "shards").rglob("*")
    }


def test_what_was_added_since_is_copied(run, store, tmp_path: Path) -> None:
    commit(run, 2)
    run.write("metrics.json", b"{}")
    first = push_run(run, store)
    assert (first.num_shards, first.planned_shards, first.exit_status) == (1, NUM_SHARDS, 3)
    assert pull_run(store, tmp_path / "copy").exit_status == 3
    for index in (0, 1, 3, 4, 5):
        commit(run, index)
    run.write("metrics.json", b'{"fid": 1}')
    again = push_run(run, store)
    assert (again.num_shards, again.exit_status) == (NUM_SHARDS, 0)
    assert again.num_files == 5 * 2 + 1
    assert pull_run(store, tmp_path / "copy").exit_status == 0
    assert tree(tmp_path / "copy") == tree(run.path)


def test_tables_added_later_follow_their_shards(finished, memory, tmp_path: Path) -> None:
    push_run(finished, memory)
    pull_run(memory, tmp_path / "copy")
    staged = finished.stage("late") / "features-clip-abcdef01.parquet"
    table = pa.table({"key": ["a"] * 4, "image_index": pa.array([0] * 4, pa.int32())})
    schemas.write_table(table, staged, kind="features")
    finished.publish_late_table(3, staged)
    assert push_run(finished, memory).num_files == 1
    pull_run(memory, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(finished.path)


def test_a_shard_that_was_made_again_replaces_the_pushed_one(
    finished, memory, tmp_path: Path
) -> None:
    late = "features-clip-abcdef01.parquet"

    def add_late(key: str) -> None:
        staged = finished.stage("late") / late
        table = pa.table({"key": [key] * 4, "image_index": pa.array([0] * 4, pa.int32())})
        schemas.write_table(table, staged, kind="features")
        finished.publish_late_table(2, staged)

    add_late("a")
    push_run(finished, memory)
    sizes = {name: len(content) for name, content in tree(finished.path).items()}
    (finished.path / "shards" / "00002").rename(finished.path / "quarantine" / "00002.0")
    commit(finished, 2, "sharp 2")
    add_late("b")
    now = {name: len(content) for name, content in tree(finished.path).items()}
    assert sizes.items() <= now.items(), "other bytes, no other size"
    assert push_run(finished, memory).exit_status == 0
    assert pull_run(memory, tmp_path / "copy").faults == ()
    shard = Path("shards") / "00002"
    for name in ("samples.parquet", "commit.json", late):
        ours, theirs = finished.path / shard / name, tmp_path / "copy" / shard / name
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_damaged_late_table_is_not_pushed_until_it_is_mended(finished, memory) -> None:
    name = "features-clip-abcdef01.parquet"
    staged = finished.stage("late") / name
    keys = [f"key {i}" for i in range(4)]
    table = pa.table({"key": keys, "image_index": pa.array([0] * 4, pa.int32())})
    schemas.write_table(table, staged, kind="features")
    sound = staged.read_bytes()
    finished.publish_late_table(3, staged)
    late = finished.shard_path(3) / name
    late.write_bytes(sound[: len(sound) // 2])
    pushed = push_run(finished, memory)
    assert (pushed.num_shards, pushed.exit_status) == (NUM_SHARDS - 1, 1)
    assert name in pushed.faults[0]
    assert f"shards/00003/{name}" not in memory.files()
    late.write_bytes(sound)
    assert push_run(finished, memory).exit_status == 0


def late_table(run: RunDirectory, index: int, name: str) -> Path:
    staged = run.stage("late") / name
    keys = [f"key {i}" for i in range(4)]
    table = pa.table({"key": keys, "image_index": pa.array([0] * 4, pa.int32())})
    schemas.write_table(table, staged, kind="features")
    run.publish_late_table(index, staged)
    return run.shard_path(index) / name


@pytest.mark.parametrize("how", ["late table", "shard", "shard made again", "every time"])
def test_what_is_set_apart_during_a_push_is_no_fault_of_the_store(
    how: str, finished, memory, monkeypatch
) -> None:
    late = late_table(finished, 2, "features-clip-abcdef01.parquet")
    put, meddled = RemotePath.put, []

    def meanwhile(self: RemotePath, file: Path) -> None:
        if file.parent.name == "00002" and (how == "every time" or not meddled):
            place = finished.path / "quarantine" / f"00002.{len(meddled)}"
            meddled.append(place)
            if how == "late table":
                place.mkdir()
                late.rename(place / late.name)
                file = late
            else:
                file.parent.rename(place)
            if how in ("shard made again", "every time"):
                commit(finished, 2, f"sharp {len(meddled)}")
        put(self, file)

    monkeypatch.setattr(RemotePath, "put", meanwhile)
    pushed = push_run(finished, memory)
    if how == "every time":
        (fault,) = pushed.faults
        assert "somebody mends the shard just now; push again" in fault
        assert pushed.exit_status == 1
        return
    assert pushed.faults == ()
    gone = how == "shard"
    assert (pushed.num_shards, pushed.exit_status) == ((5, 3) if gone else (6, 0))
    names = {name for name in memory.files() if name.startswith("shards/00002/")}
    if not gone:
        expected = {path.name for path in finished.shard_path(2).iterdir()}
        assert names == {f"shards/00002/{name}" for name in expected}


def test_a_push_says_which_shards_were_set_apart(call, finished, bucket) -> None:
    flipped = finished.shard_path(4) / "samples.parquet"
    flipped.write_bytes(flipped.read_bytes()[:-9])
    assert set_apart_shard(finished, 4)
    pushed = call("push", finished.path, bucket / "runs" / "y")
    assert pushed.status == 3
    assert "5/6 shards" in pushed.out
    assert "not there: shard 00004 was found damaged (samples.parquet: " in pushed.err


def test_numbers_that_were_dropped_do_not_come_back(finished, memory, tmp_path: Path) -> None:
    finished.write_metric_table("realism", pa.table({"key": ["a"]}))
    push_run(finished, memory)
    finished.drop_metric_tables(but=())
    push_run(finished, memory)
    pull_run(memory, tmp_path / "copy")
    assert not list((tmp_path / "copy").rglob("realism.parquet"))


def test_an_interrupted_push_goes_on_where_it_was(finished, memory, monkeypatch) -> None:
    put, sent = RemotePath.put, []

    def failing(self, file: Path) -> None:
        if str(self).endswith("shards/00004/commit.json"):
            raise StorageError("the network is gone")
        put(self, file)
        sent.append(str(self))

    with monkeypatch.context() as patch:
        patch.setattr(RemotePath, "put", failing)
        with pytest.raises(StorageError, match="network is gone"):
            push_run(finished, memory)
    assert len(read_manifest(memory, memory.files())) >= 3 + 2 * 4
    sent.clear()
    monkeypatch.setattr(RemotePath, "put", lambda self, file: (put(self, file), sent.append(self)))
    assert push_run(finished, memory).exit_status == 0
    assert 2 <= len(sent) <= 4
    assert any(str(remote).endswith("00004/commit.json") for remote in sent)


def test_a_shard_without_its_record_is_not_there_yet(finished, memory, tmp_path: Path) -> None:
    push_run(finished, memory)
    record = (memory / "shards/00003/commit.json").read_bytes()
    delete(memory / "shards/00003/commit.json")
    pulled = pull_run(memory, tmp_path / "copy")
    assert (pulled.num_shards, pulled.exit_status) == (NUM_SHARDS - 1, 3)
    assert not (tmp_path / "copy" / "shards" / "00003").exists()
    put_back(memory, "shards/00003/commit.json", record)
    assert pull_run(memory, tmp_path / "copy").exit_status == 0


def test_a_damaged_shard_is_not_pushed_and_the_others_are(finished, memory, tmp_path: Path) -> None:
    path = finished.shard_path(2) / "samples.parquet"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    pushed = push_run(finished, memory)
    assert (pushed.num_shards, pushed.exit_status) == (NUM_SHARDS - 1, 1)
    assert "00002/samples.parquet: expected SHA-256" in pushed.faults[0]
    assert "shards/00002/commit.json" not in memory.files()


def test_a_shard_that_lost_a_file_is_named_and_not_pushed(finished, memory) -> None:
    (finished.shard_path(2) / "samples.parquet").unlink()
    pushed = push_run(finished, memory)
    assert (pushed.num_shards, pushed.exit_status) == (NUM_SHARDS - 1, 1)
    (fault,) = pushed.faults
    assert "shards/00002/samples.parquet: expected a file that was committed" in fault
    assert "evaluator status RUN --verify" in fault
    assert not any(name.startswith("shards/00002/") for name in memory.files())


@pytest.mark.parametrize("listed", [True, False])
def test_a_shard_that_was_damaged_in_the_store_does_not_appear(
    finished, memory, tmp_path: Path, listed: bool
) -> None:
    push_run(finished, memory)
    name = "shards/00001/samples.parquet"
    data = bytearray((memory / name).read_bytes())
    data[40] ^= 1
    put_back(memory, name, bytes(data))
    if not listed:  # then the shard's own record tells
        delete(memory / "pushed.json")
    pulled = pull_run(memory, tmp_path / "copy")
    assert (pulled.num_shards, pulled.exit_status) == (NUM_SHARDS - 1, 1)
    assert f"{memory}/{name}: expected" in pulled.faults[0]
    assert not (tmp_path / "copy" / "shards" / "00001").exists()
    delete(memory / name)
    assert "expected SHA-256" in pull_run(memory, tmp_path / "copy").faults[0]
    assert push_run(finished, memory).exit_status == 0
    assert pull_run(memory, tmp_path / "copy").exit_status == 0
    assert tree(tmp_path / "copy") == tree(finished.path)


@pytest.mark.parametrize("name", ["../00001/samples.parquet", "/etc/hostname"])
def test_a_record_that_names_files_elsewhere_is_refused(
    name: str, finished, memory, tmp_path: Path
) -> None:
    push_run(finished, memory)
    record = json.loads((finished.shard_path(2) / "commit.json").read_text())
    record["rows"][name] = None
    put_back(memory, "shards/00002/commit.json", json.dumps(record).encode())
    delete(memory / "pushed.json")
    pulled = pull_run(memory, tmp_path / "copy")
    assert len(pulled.faults) == 1
    assert f"got ValueError(\"a file called '{name}'\")" in pulled.faults[0]
    assert not RunDirectory.open(tmp_path / "copy").is_committed(2)


def test_a_cut_upload_is_noticed(finished, memory, monkeypatch) -> None:
    put = RemotePath.put

    def cut(self, file: Path) -> None:
        if "00001/samples" in str(self):
            self.write_bytes(file.read_bytes()[:50])
        else:
            put(self, file)

    monkeypatch.setattr(RemotePath, "put", cut)
    pushed = push_run(finished, memory)
    assert pushed.exit_status == 1
    assert "00001/samples.parquet: expected" in pushed.faults[0]
    monkeypatch.undo()
    assert push_run(finished, memory).exit_status == 0


def test_another_run_is_not_mixed_in(finished, memory, tmp_path: Path) -> None:
    push_run(finished, memory)
    init = {"config.yaml": b"name: y", "provenance.json": b'{"a": 1}'}
    other = RunDirectory.create(tmp_path / "other", init, plan(4 * NUM_SHARDS, 4))
    with pytest.raises(RunDirectoryError, match=r"got another run \(init/config\.yaml differs\)"):
        push_run(other, memory)
    with pytest.raises(RunDirectoryError, match=r"got another run \(init/config\.yaml differs\)"):
        pull_run(memory, tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    with pytest.raises(RunDirectoryError, match=r"a folder with other files \(thesis\.tex\)"):
        pull_run(memory, tmp_path / "mine")
    (memory / "elsewhere" / "x").write_bytes(b"x")
    with pytest.raises(RunDirectoryError, match="got other files, such as 'x'"):
        push_run(other, memory / "elsewhere")
    with pytest.raises(RunDirectoryError, match=r"no init/config\.yaml"):
        pull_run(memory / "elsewhere", tmp_path / "new")
    with pytest.raises(RunDirectoryError, match="got nothing there"):
        pull_run(memory / "nothing", tmp_path / "new")


def test_two_pushes_while_shards_are_committed_leave_the_whole_run(
    run, store, tmp_path: Path
) -> None:
    results = []

    def keep_pushing() -> None:
        while not results or results[-1].exit_status == 3:
            results.append(push_run(run, store))

    with beside(keep_pushing, keep_pushing):
        for index in range(NUM_SHARDS):
            commit(run, index, f"shard {index}")
            run.write("metrics.json", json.dumps({"fid": index}).encode())
    assert {result.faults for result in results} == {()}
    assert push_run(run, store).exit_status == 0
    assert pull_run(store, tmp_path / "copy").exit_status == 0
    assert tree(tmp_path / "copy") == tree(run.path)


def test_a_push_that_is_overtaken_leaves_the_newer_file(
    finished, memory, tmp_path: Path, monkeypatch
) -> None:
    old, new = b'{"fid": 1}', b'{"fid": 2}'  # of one size, so that no listing tells them apart
    main, write = threading.current_thread(), RemotePath.write_bytes
    late, overtaken, arrived = threading.Event(), threading.Event(), threading.Event()

    def write_bytes(self, content: bytes) -> None:
        ours = threading.current_thread() is main
        if ours and content == old and not late.is_set():
            finished.write("metrics.json", new)
            late.set()
            assert overtaken.wait(PATIENCE)
        write(self, content)
        if not ours and content == new:
            overtaken.set()
            assert arrived.wait(PATIENCE), "it notes what it put only when the other has"

    def overtake() -> None:
        assert late.wait(PATIENCE)
        push_run(finished, memory)

    monkeypatch.setattr(RemotePath, "write_bytes", write_bytes)
    with beside(overtake):
        push_run(finished, memory)
        arrived.set()
    assert (memory / "metrics.json").read_bytes() == new
    assert push_run(finished, memory).num_files == 0
    assert pull_run(memory, tmp_path / "copy").faults == ()
    assert tree(tmp_path / "copy") == tree(finished.path)


class Killed(Exception):
    """The pusher is gone: nothing more is put."""


def test_a_push_killed_between_any_two_writes_leaves_whole_shards_only(
    memory, tmp_path: Path, monkeypatch
) -> None:
    init = {"config.yaml": b"name: x", "provenance.json": b"{}"}
    run = RunDirectory.create(tmp_path / "small", init, plan(6, 2))
    for index in range(3):
        commit(run, index)
    run.write("metrics.json", b"{}")
    put, write = RemotePath.put, RemotePath.write_bytes
    left = 0

    def once(method):
        def counted(self, what) -> None:
            nonlocal left
            if left <= 0:
                raise Killed
            left -= 1
            method(self, what)

        return counted

    monkeypatch.setattr("evaluator.store.push.NUM_CONNECTIONS", 1)
    monkeypatch.setattr(RemotePath, "put", once(put))
    monkeypatch.setattr(RemotePath, "write_bytes", once(write))
    seen = []
    for number in range(3 + 2 * 3 + 2):
        store, copy = memory / str(number), tmp_path / str(number)
        left = number
        with pytest.raises(Killed):
            push_run(run, store)
        if number >= 3:
            pulled = pull_run(store, copy)
            assert pulled.faults == ()
            assert pulled.num_shards == min((number - 3) // 2, 3)
            for index in RunDirectory.open(copy).committed():
                RunDirectory.open(copy).verify(index)
            seen.append(pulled.num_shards)
        left = 1000
        assert push_run(run, store).exit_status == 0
        assert pull_run(store, copy).exit_status == 0
        assert tree(copy) == tree(run.path)
    assert set(seen) == {0, 1, 2, 3}


def test_two_pulls_into_one_folder_leave_one_copy(finished, memory, tmp_path: Path) -> None:
    push_run(finished, memory)
    results = []

    def pull() -> None:
        results.append(pull_run(memory, tmp_path / "copy"))

    with beside(pull, pull, pull):
        pass
    assert [(r.exit_status, r.faults) for r in results] == [(0, ())] * 3
    assert tree(tmp_path / "copy") == tree(finished.path)
    assert not list((tmp_path / "copy" / "staging").rglob("*.parquet"))


@pytest.mark.parametrize("url", ["runs/copy", "hf://datasets/a/b", "https://x/y?secret=1"])
def test_a_run_goes_to_a_bucket_only(url: str) -> None:
    with pytest.raises(InputError, match="expected s3://bucket/folder") as caught:
        remote_run(url)
    assert "secret" not in str(caught.value)


def test_the_verbs_say_what_is_there(call, finished, bucket, tmp_path: Path) -> None:
    there = bucket / "runs" / "x"
    pushed = call("push", finished.path, there)
    assert pushed.status == 0
    assert f"{there}: {NUM_SHARDS}/{NUM_SHARDS} shards; 17 files" in pushed.out
    delete(there / "shards/00000/commit.json")
    pulled = call("pull", there, tmp_path / "copy")
    assert pulled.status == 3
    assert f"{NUM_SHARDS - 1}/{NUM_SHARDS} shards" in pulled.out
    assert call("status", tmp_path / "copy").status == 3
    refused = call("status", there)
    assert refused.status == 2
    assert "evaluator pull URL RUN" in refused.err
