"""Prompts and images in a remote store are the same as on the disk, fetched once, and watched."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluator.data import PackOptions, fetched, open_source, pack
from evaluator.errors import CorruptShardError, InputError, StorageError
from evaluator.remote import RemotePath, addresses
from tests.stores import SECRET, check_credentials, delete, forget_clients
from tests.waiting import PATIENCE, beside, running


@pytest.fixture
def sources(make_folder, make_tar, make_picture, tmp_path: Path) -> dict[str, Path]:
    """One of each kind of source, by the name it has in the store."""
    images = {f"{i}.png": make_picture(i) for i in range(5)}
    captions = {f"{i}.txt": f"text {i}" for i in range(5)}
    found = {"images": make_folder({**images, **captions, "sub/notes.md": "not ours"})}
    for name in ("prompts.txt", "prompts.csv", "prompts.jsonl"):
        header = "prompt\n" if name.endswith("csv") else ""
        line = '{{"text": "{}"}}\n' if name.endswith("jsonl") else "{}\n"
        found[name] = tmp_path / name
        found[name].write_text(header + "".join(line.format(t) for t in ("a cat", "a dog")))
    found["table.parquet"] = tmp_path / "table.parquet"
    pq.write_table(pa.table({"prompt": ["a cat", "a dog"]}), found["table.parquet"])
    found["batch.npz"] = tmp_path / "batch.npz"
    np.savez(found["batch.npz"], np.zeros((3, 4, 4, 3), np.uint8))
    found["images.zip"] = tmp_path / "images.zip"
    with zipfile.ZipFile(found["images.zip"], "w") as file:
        for name, data in images.items():
            file.writestr(name, data)
    members = [(f"{i}.{part}", data) for i in range(5) for part, data in
               (("jpg", make_picture(i, "JPEG")), ("txt", b"x"))]  # fmt: skip
    found["set.tar"] = make_tar(members, name="set.tar")
    pack(found["images"], tmp_path / "pack", options=PackOptions(samples_per_tar=2))
    found["pack"] = tmp_path / "pack"
    return found


KINDS = ["images", "prompts.txt", "prompts.csv", "prompts.jsonl", "table.parquet", "batch.npz",
         "images.zip", "set.tar", "pack"]  # fmt: skip


def test_every_kind_of_source_is_the_same_remote_as_on_the_disk(
    sources, store, upload, tmp_path: Path
) -> None:
    for kind in KINDS:
        remote = upload(sources[kind], store / kind)
        here = open_source(sources[kind], cache=tmp_path / "here")
        there = open_source(str(remote), cache=tmp_path / "there")
        assert there.fingerprint == here.fingerprint, kind
        assert there.keys == here.keys
        assert there.prompts() == here.prompts()
        assert [there.original(key) for key in there.keys] == [here.original(k) for k in here.keys]
        for ours, theirs in zip(here.stream(), there.stream(), strict=True):
            assert ours == theirs
    assert sorted(p.name for p in (tmp_path / "here" / "packs").iterdir()) == sorted(
        p.name for p in (tmp_path / "there" / "packs").iterdir()
    )


class Watched:
    """A store's client that notes whose content was asked for."""

    def __init__(self, client, seen: list[str]) -> None:
        self._client, self._seen = client, seen

    def __getattr__(self, name: str):
        if name in ("cat_file", "get_file"):
            return lambda path, *rest, **more: (
                self._seen.append(path.rpartition("/")[2])
                or getattr(self._client, name)(path, *rest, **more)
            )
        return getattr(self._client, name)


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The name of the file in every request for content that goes to a store."""
    seen: list[str] = []
    client = addresses._client

    def watched(scheme: str, pid: int) -> Watched:
        return Watched(client(scheme, pid), seen)

    watched.cache_clear = client.cache_clear
    monkeypatch.setattr(addresses, "_client", watched)
    return seen


def test_a_raw_source_is_fetched_once(sources, store, upload, cache: Path, asked) -> None:
    remote = upload(sources["images"], store / "images")
    open_source(remote, cache=cache)
    assert sorted(asked) == sorted(f"{i}.{kind}" for i in range(5) for kind in ("png", "txt"))
    asked.clear()
    open_source(remote, cache=cache)
    assert asked == []


def test_a_pack_is_read_by_ranges_where_it_is(
    make_folder, make_picture, bucket, upload, cache: Path, tmp_path: Path, asked, monkeypatch
) -> None:
    monkeypatch.setattr(addresses, "BLOCK", 4096)
    folder = make_folder({f"{i}.png": make_picture(i, size=(40, 40)) for i in range(30)})
    made = pack(folder, tmp_path / "pack")
    remote = upload(tmp_path / "pack", bucket / "pack")
    found = open_source(remote, cache=cache)
    asked.clear()
    assert found.read("7", "png") == made.read("7", "png")
    assert asked == ["00000.tar"] * len(asked)
    assert 1 <= len(asked) <= 3
    assert not list(cache.rglob("*.tar"))
    assert (tmp_path / "pack" / "00000.tar").stat().st_size > 30 * 4096
    again = pickle.loads(pickle.dumps(found))
    assert again.image("9").equal(made.image("9"))


def test_members_across_blocks_are_put_together(
    sources, memory, upload, cache, monkeypatch
) -> None:
    monkeypatch.setattr(addresses, "BLOCK", 100)
    here = open_source(sources["pack"], cache=cache)
    there = open_source(upload(sources["pack"], memory / "pack"), cache=cache)
    assert list(there.stream()) == list(here.stream())
    assert [there.read(k, "png") for k in there.keys] == [here.read(k, "png") for k in here.keys]


def test_a_changed_object_is_noticed(sources, store, upload, cache: Path) -> None:
    prompts = upload(sources["prompts.txt"], store / "prompts.txt")
    first = open_source(prompts, cache=cache)
    prompts.write_bytes(b"a cat\na cow\n")  # of the same size
    assert open_source(prompts, cache=cache).prompts()[1].text == "a cow"
    images = upload(sources["images"], store / "images")
    before = open_source(images, cache=cache)
    (images / "3.txt").write_bytes(b"changed")
    after = open_source(images, cache=cache)
    assert after.fingerprint != before.fingerprint
    assert after.prompt("3").text == "changed"
    (images / "5.png").put(sources["images"] / "0.png")
    (images / "5.txt").write_bytes(b"new")
    assert open_source(images, cache=cache).num_samples == 6
    prompts.write_bytes(b"a cat\na dog\n")
    assert open_source(prompts, cache=cache).fingerprint == first.fingerprint


def test_tars_in_a_set_are_indexed_in_place_and_again_when_one_changes(
    make_tar, store, upload, cache: Path
) -> None:
    for number in range(3):
        tar = make_tar([(f"s{number}.txt", b"x")], name=f"set-{number:04d}.tar")
    upload(tar.parent, store / "tars")
    by_braces = open_source(str(store / "tars" / "set-{0000..0002}.tar"), cache=cache)
    by_folder = open_source(store / "tars", cache=cache)
    here = open_source(tar.parent, cache=cache)
    assert by_braces.keys == by_folder.keys == ("s0", "s1", "s2")
    assert by_braces.fingerprint == by_folder.fingerprint == here.fingerprint
    with pytest.raises(InputError, match=r"expected 5 tars, got none at .*3\.tar \(2 missing\)"):
        open_source(str(store / "tars" / "set-{0000..0004}.tar"), cache=cache)
    (store / "tars" / "set-0001.tar").put(make_tar([("s1.txt", b"y")], name="other.tar"))
    changed = open_source(store / "tars", cache=cache)
    assert [p.text for p in changed.prompts()] == ["x", "y", "x"]


def test_a_remote_tar_that_was_cut_is_refused(make_tar, store, cache: Path) -> None:
    tar = make_tar([("a.txt", b"1"), ("b.txt", b"2"), ("c.txt", b"3")])
    for size in (2048, 2000, 1024, 700, 0):
        (store / "a.tar").write_bytes(tar.read_bytes()[:size])
        with pytest.raises(InputError, match=r"a\.tar: .*(cut short|expected a tar)"):
            open_source(store / "a.tar", cache=cache)


def test_bytes_that_changed_under_an_index_are_refused(sources, memory, upload, cache) -> None:
    found = open_source(upload(sources["pack"], memory / "pack"), cache=cache)
    tar = memory / "pack" / "00001.tar"
    data = bytearray(tar.read_bytes())
    row = found.rows(range(2, 3))[0][1]
    data[row.offset] ^= 1
    tar.write_bytes(bytes(data))
    found = open_source(memory / "pack", cache=cache)
    with pytest.raises(CorruptShardError, match=r"00001\.tar: .* packed bytes of '2'"):
        found.read("2", "png")
    tar.write_bytes(bytes(data[:-512]))
    with pytest.raises(CorruptShardError, match=r"00001\.tar: expected \d+ bytes, got"):
        open_source(memory / "pack", cache=cache)
    delete(tar)
    with pytest.raises(InputError, match=r"00001\.tar: .* got nothing there"):
        open_source(memory / "pack", cache=cache)


def test_attachments_and_captions_come_along(sources, store, upload, cache, tmp_path) -> None:
    lines = [{"text": "a", "attachments": {"init": "deep/er/0.png"}}, {"text": "b"}]
    (store / "p.jsonl").write_bytes("".join(json.dumps(line) + "\n" for line in lines).encode())
    (store / "deep" / "er" / "0.png").put(sources["images"] / "0.png")
    found = open_source(store / "p.jsonl", cache=cache)
    assert found.read("0000001", "init.png") == (sources["images"] / "0.png").read_bytes()
    (store / "deep" / "er" / "0.png").put(sources["images"] / "1.png")
    changed = open_source(store / "p.jsonl", cache=cache)
    assert changed.fingerprint != found.fingerprint
    (store / "c.txt").write_bytes(b"one\ntwo\nthree\nfour\nfive\n")
    remote = upload(sources["images.zip"], store / "images.zip")
    options = PackOptions(captions=store / "c.txt")
    assert open_source(remote, cache=cache, options=options).prompt("1").text == "two"
    made = pack(remote, tmp_path / "made", options=options, cache=cache)
    assert made.prompt("4").text == "five"


def test_messages_name_the_address_not_the_copy(memory, cache: Path) -> None:
    (memory / "p.jsonl").write_bytes(b'{"text": "a"}\n{"text": \n')
    with pytest.raises(InputError) as caught:
        open_source(memory / "p.jsonl", cache=cache)
    assert str(cache) not in str(caught.value)
    assert "p.jsonl" in str(caught.value)
    (memory / "images" / "1.png").write_bytes(b"")
    (memory / "images" / "captions.csv").write_bytes(b"file_name,text\n2.png,x\n")
    with pytest.raises(InputError) as caught:
        open_source(memory / "images", cache=cache)
    assert str(cache) not in str(caught.value)


def _open(address: str, cache: Path, barrier, results) -> None:
    try:
        barrier.wait(PATIENCE)
        found = open_source(address, cache=cache)
        results.put((str(found.path), found.fingerprint, found.num_samples))
    except BaseException as error:
        results.put(repr(error))


@pytest.mark.parametrize("locked", [True, False])
def test_three_processes_fetch_one_copy(
    make_folder, make_picture, bucket, upload, cache: Path, locked, monkeypatch
) -> None:
    from evaluator.data import turns

    remote = upload(make_folder({f"{i}.png": make_picture(i) for i in range(12)}), bucket / "x")
    if not locked:  # as on a file system without locks
        monkeypatch.setattr(turns.fcntl, "flock", _no_locks)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=_open, args=(str(remote), cache, barrier, results)) for _ in range(3)
    ]
    with running(workers):
        found = {results.get(timeout=PATIENCE) for _ in workers}
    assert len(found) == 1, found
    assert next(iter(found))[2] == 12
    assert len(list((cache / "remote").iterdir())) == 1


def test_a_copy_that_another_has_finished_just_now_stays_where_it_is(
    sources, memory, upload, cache: Path, monkeypatch
) -> None:
    from evaluator.data import turns

    remote = upload(sources["images"], memory / "images")
    is_whole, rename = fetched._is_whole, os.rename
    looks: list[bool] = []
    moved: list[Path] = []

    def looked(*where) -> bool:
        looks.append(is_whole(*where))
        if len(looks) == 2:  # the last look before it is fetched
            open_source(remote, cache=cache)
            return False
        return looks[-1]

    monkeypatch.setattr(turns.fcntl, "flock", _no_locks)
    monkeypatch.setattr(fetched, "_is_whole", looked)
    monkeypatch.setattr(os, "rename", lambda old, new: (moved.append(Path(old)), rename(old, new)))
    assert open_source(remote, cache=cache).num_samples == 5
    (copy,) = (cache / "remote").iterdir()
    assert copy not in moved, "the other one reads it"


def _no_locks(*_) -> None:
    raise OSError("No locks available")


def test_an_interrupted_fetch_goes_on_where_it_was(
    sources, store, upload, cache: Path, asked, monkeypatch
) -> None:
    remote = upload(sources["images"], store / "images")
    with monkeypatch.context() as patch:
        patch.setattr(fetched, "NUM_CONNECTIONS", 1)
        patch.setattr(RemotePath, "fetch", _failing_at(RemotePath.fetch, "3.txt"))
        with pytest.raises(StorageError, match="could not fetch"):
            open_source(remote, cache=cache)
    first = list(asked)
    assert set(first) >= {"0.png", "0.txt", "1.png", "1.txt", "2.png", "2.txt", "3.png"}
    assert not (cache / "packs").exists()
    asked.clear()
    assert open_source(remote, cache=cache).num_samples == 5
    assert "3.txt" in asked
    everything = [f"{i}.{kind}" for i in range(5) for kind in ("png", "txt")]
    assert sorted(first + asked) == sorted(everything)  # each once


def _die_in_a_fetch(remote: RemotePath, cache: Path) -> None:
    fetch = RemotePath.fetch

    def deadly(self, to: Path) -> None:
        fetch(self, to)
        if self.name == "3.txt":
            os.truncate(to, 2)
            os.kill(os.getpid(), signal.SIGKILL)

    RemotePath.fetch = deadly  # in this process only, which ends there
    open_source(remote, cache=cache)


def test_a_killed_fetch_leaves_nothing_half_done(
    sources, memory, upload, cache: Path, asked, monkeypatch
) -> None:
    remote = upload(sources["images"], memory / "images")
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(fetched, "NUM_CONNECTIONS", 1)  # it dies with seven files there
    worker = context.Process(target=_die_in_a_fetch, args=(remote, cache), daemon=True)
    worker.start()
    worker.join(PATIENCE)
    assert worker.exitcode == -signal.SIGKILL
    assert [path for path in (cache / "remote").rglob("*") if path.is_file()]
    found = open_source(remote, cache=cache)
    assert found.fingerprint == open_source(sources["images"], cache=cache).fingerprint
    assert asked == ["3.txt", "4.png", "4.txt"]
    (copy,) = (cache / "remote").iterdir()
    assert [path.name for path in copy.iterdir()] == ["images"]


def _failing_at(fetch, name: str):
    def fails(self, to: Path) -> None:
        if self.name == name:
            raise StorageError(f"could not fetch {self}")
        fetch(self, to)

    return fails


def test_a_copy_that_was_cleaned_in_part_is_completed(
    sources, memory, upload, cache: Path, asked
) -> None:
    remote = upload(sources["images"], memory / "images")
    before = open_source(remote, cache=cache)
    (gone,) = (cache / "remote").rglob("3.png")
    gone.unlink()
    asked.clear()
    shutil.rmtree(cache / "packs")
    after = open_source(remote, cache=cache)
    assert asked == ["3.png"]
    assert after.fingerprint == before.fingerprint


def test_a_transfer_that_changes_bytes_is_noticed(sources, bucket, upload, cache, monkeypatch):
    remote = upload(sources["prompts.txt"], bucket / "prompts.txt")
    fetch, turn = RemotePath.fetch, iter(range(100))

    def disturbed(self, to: Path) -> None:
        fetch(self, to)
        data = bytearray(to.read_bytes())
        data[next(turn) % len(data)] ^= 1
        to.write_bytes(data)

    monkeypatch.setattr(RemotePath, "fetch", disturbed)
    with pytest.raises(StorageError, match="expected content with the checksum"):
        open_source(remote, cache=cache)
    assert not [path for path in (cache / "remote").rglob("*") if path.is_file()]


def test_a_tag_that_is_no_checksum_is_found_out_by_a_second_look(
    sources, bucket, upload, cache, monkeypatch
) -> None:
    remote = upload(sources["images"], bucket / "images")
    stored = addresses._stored
    monkeypatch.setattr(addresses, "_stored", lambda about: stored(about)._replace(md5="0" * 32))
    assert open_source(remote, cache=cache).num_samples == 5


def test_a_cut_transfer_is_noticed(sources, memory, upload, cache, monkeypatch) -> None:
    remote = upload(sources["prompts.txt"], memory / "prompts.txt")
    monkeypatch.setattr(RemotePath, "fetch", lambda self, to: to.write_bytes(b"a c"))
    with pytest.raises(StorageError, match=r"prompts\.txt: expected 12 bytes, got 3"):
        open_source(remote, cache=cache)


def test_a_source_that_changes_while_it_is_fetched_is_refused(
    sources, memory, upload, cache, monkeypatch
) -> None:
    remote = upload(sources["images"], memory / "images")
    fetch = RemotePath.fetch

    def disturbed(self, to: Path) -> None:
        fetch(self, to)
        if self.name == "4.txt":
            (remote / "0.txt").write_bytes(b"text 9")

    monkeypatch.setattr(RemotePath, "fetch", disturbed)
    with pytest.raises(InputError, match="changed while it was being fetched"):
        open_source(remote, cache=cache)
    assert not [path for path in (cache / "remote").rglob("*") if path.is_file()]


def test_a_folder_may_be_hidden_in_its_store(sources, memory, upload, cache: Path) -> None:
    remote = upload(sources["images"], memory / ".images")
    assert open_source(remote, cache=cache).num_samples == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing/prompts.txt", "nothing there; check the address"),
        ("prompts.xlsx", r"expected \.txt, .* got '\.xlsx'; export it as \.csv"),
        ("prompts.txy", r"did you mean \.txt"),
        ("others", r"expected images .* got 1 other files, such as 'weights\.bin'"),
        ("mixed", r"expected tars or images, got both \(a\.tar, b\.png\)"),
    ],
)
def test_what_cannot_be_a_source_is_refused(memory, cache: Path, name: str, message: str) -> None:
    for file in ("prompts.xlsx", "prompts.txy", "others/weights.bin", "mixed/a.tar", "mixed/b.png"):
        (memory / file).write_bytes(b"x")
    with pytest.raises(InputError, match=f"(?s){name}.*{message}"):
        open_source(str(memory / name), cache=cache)


def test_names_that_could_leave_the_copy_are_refused(bucket, cache: Path) -> None:
    client, path = bucket._store()
    client.pipe_file(f"{path}/images/../../../evil.png", b"x")
    with pytest.raises(InputError, match=r"expected plain names, got '.*\.\./evil\.png'"):
        open_source(str(bucket), cache=cache)


def test_what_is_wrong_with_the_store_is_said_without_its_secrets(
    bucket, s3_environment: str, cache: Path, monkeypatch, fresh_clients
) -> None:
    def message(address: str, kind: type[Exception]) -> str:
        forget_clients()
        with pytest.raises(kind) as caught:
            open_source(address, cache=cache)
        chain, error = [], caught.value
        while error is not None:
            chain.append(str(error))
            error = error.__cause__
        assert SECRET not in "".join(chain)
        return str(caught.value)

    assert "got no such bucket" in message("s3://no-such-bucket-here/x.txt", InputError)
    check_credentials(s3_environment, True)
    try:
        refused = message(f"{bucket}/x.txt", InputError)
    finally:
        check_credentials(s3_environment, False)
    assert "expected permission to list it, got refused" in refused
    assert "AWS_PROFILE" in refused
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "got refused (NoCredentialsError)" in message(f"{bucket}/x.txt", InputError)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    unreachable = message(f"{bucket}/x.txt", StorageError)
    assert "did not answer as it should (EndpointConnectionError)" in unreachable


def test_a_store_that_never_answers_is_given_up(
    cache: Path, s3_environment, monkeypatch, fresh_clients
) -> None:
    import socket

    import fsspec
    import s3fs

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(50)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        quick = {"config_kwargs": {"read_timeout": 0.2, "retries": {"max_attempts": 0}}}
        monkeypatch.setitem(fsspec.config.conf, "s3", quick)
        monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
        with pytest.raises(StorageError, match=r"did not answer .*Timeout.*run the same command"):
            open_source("s3://bucket/x.txt", cache=cache)


def test_a_missing_package_is_named_with_its_extra(cache: Path, monkeypatch, fresh_clients) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"package gcsfs.*pip install 'diffusion-evaluator\[gs\]'"):
        open_source("gs://bucket/x.txt", cache=cache)


def test_the_hub_says_that_it_is_out_of_reach(cache: Path) -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(StorageError, match=r"hf://datasets/a/b/x\.txt: the store did not answer"):
        open_source("hf://datasets/a/b/x.txt", cache=cache)


@pytest.mark.parametrize(
    "address",
    [
        f"s3://key:{SECRET}@bucket/x.txt", f"s3://{SECRET}@bucket/x.txt",
        f"s3://bucket/x.txt?X-Amz-Signature={SECRET}", f"hf://user:{SECRET}@datasets/a/x.txt",
    ],
)  # fmt: skip
def test_addresses_with_credentials_are_refused_unread(address: str, cache: Path) -> None:
    with pytest.raises(InputError, match="without credentials") as caught:
        open_source(address, cache=cache)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["s3://", "s3:///x.txt", "s3://b/../x", "s3://b//x", "s3://b/*.txt",
                "s3://b/x::file:///etc/passwd", "memory://b\\x"],
)  # fmt: skip
def test_addresses_that_name_no_one_place_are_refused(address: str, cache: Path) -> None:
    with pytest.raises(InputError, match="expected (s3|memory)://bucket/path"):
        open_source(address, cache=cache)


def test_threads_share_one_client(store) -> None:
    (store / "x").write_bytes(b"x" * 1000)
    read: list[bytes] = []

    def keep_reading() -> None:
        read.append((store / "x").read_bytes())

    with beside(*[keep_reading] * 8):
        pass
    assert read == [b"x" * 1000] * 8
