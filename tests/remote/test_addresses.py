"""An address behaves as a path does, a file read by ranges as a file, and faults say whose."""

from __future__ import annotations

import errno
import io
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from evaluator.errors import InputError, StorageError
from evaluator.remote import RemotePath, addresses
from evaluator.remote.faults import explained
from tests.waiting import beside, until

SIZE = 16_000_000


def test_an_address_has_the_parts_of_a_path() -> None:
    remote = RemotePath.parse("s3://bucket/some.where/a.b.TAR/")
    assert remote == RemotePath("s3://bucket/some.where/a.b.TAR")
    assert (str(remote), remote.name, remote.suffix) == (remote.address, "a.b.TAR", ".TAR")
    assert str(remote.parent) == "s3://bucket/some.where"
    assert remote.parent / "a.b.TAR" == remote
    assert remote.parent.parent.parent == RemotePath("s3://bucket")
    assert pickle.loads(pickle.dumps(remote)) == remote
    for text in ("runs/s3", "/s3://x", "package://a/b", "https://x/y", "S3:/b/x", ""):
        assert RemotePath.parse(text) is None


def test_a_store_lists_what_was_put_there(store) -> None:
    assert store.files() == {}
    assert not store.exists()
    for name in ("a.txt", "b/c.txt", "b.txt"):
        (store / name).write_bytes(name.encode())
    assert list(store.files()) == ["a.txt", "b.txt", "b/c.txt"]
    assert {name: about.size for name, about in store.files().items()} == {
        "a.txt": 5, "b.txt": 5, "b/c.txt": 7,
    }  # fmt: skip
    assert list((store / "b").files()) == ["c.txt"]
    assert list((store / "b.txt").files()) == [""]
    assert (store / "b.txt").is_file()
    assert not (store / "b").is_file()
    with pytest.raises(InputError, match="expected something to read, got nothing there"):
        (store / "b").stat()
    before = (store / "a.txt").stat()
    (store / "a.txt").write_bytes(b"other")
    after = (store / "a.txt").stat()
    assert before.size == after.size
    assert before.version != after.version


def test_whoever_lists_meanwhile_sees_a_whole_file_or_none(store, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(SIZE))
    seen, over = [], threading.Event()

    def keep_listing() -> None:
        while not over.is_set():
            seen.append({name: about.size for name, about in store.files().items()})

    with beside(keep_listing) as (listing,):
        try:
            for index in range(8):
                before = len(seen)
                (store / f"{index}").put(tmp_path / "big")
                until("it is listed", lambda at=before: len(seen) > at or not listing.is_alive())
        finally:
            over.set()
    assert {size for listed in seen for size in listed.values()} <= {SIZE}


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000])
def test_reading_by_ranges_is_reading(memory, monkeypatch, size: int) -> None:
    monkeypatch.setattr(addresses, "BLOCK", 64)
    rng = np.random.default_rng(size)
    content = rng.bytes(size)
    (memory / "x").write_bytes(content)
    (memory / "x").files()  # looks anew
    ours, oracle = (memory / "x").open(), io.BytesIO(content)
    for _ in range(300):
        whence = int(rng.integers(3))
        offset = int(rng.integers(-size - 5, size + 70))
        if whence == io.SEEK_SET and offset < 0:
            continue
        assert ours.seek(offset, whence) == oracle.seek(offset, whence)
        count = int(rng.integers(-1, size + 70))
        assert ours.read(count) == oracle.read(count)
        assert ours.tell() == oracle.tell()
    assert not ours.writable()


def test_a_file_that_shrank_under_its_reader_is_noticed(memory) -> None:
    (memory / "x").write_bytes(b"x" * 100)
    file = (memory / "x").open()
    (memory / "x").write_bytes(b"x" * 50)
    with pytest.raises(StorageError, match="expected 100 bytes at 0, got 50; it changed"):
        file.read(10)


class RefreshError(Exception):
    """As google.auth has one."""


class HttpError(Exception):
    def __init__(self, code: int, text: str = "secret") -> None:
        self.code = code
        super().__init__(text)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (RefreshError("secret"), InputError, "gcloud auth application-default login"),
        (HttpError(403), InputError, r"expected permission to fetch it, got refused \(HttpError\)"),
        (HttpError(401), InputError, "expected permission"),
        (HttpError(404), InputError, "got nothing there"),
        (HttpError(404, "The bucket does not exist"), InputError, "got no such bucket"),
        (HttpError(503), StorageError, r"did not answer as it should \(HttpError\)"),
        (ConnectionResetError(errno.ECONNRESET, "secret"), StorageError, "ECONNRESET"),
        (TimeoutError("secret"), StorageError, "TimeoutError.*run the same command again"),
        (OSError(errno.ENOSPC, "No space left"), StorageError, "No space left.*Free space"),
        (ValueError("secret"), StorageError, r"\(ValueError\)"),
    ],
)  # fmt: skip
def test_faults_of_a_store_are_translated(error, kind, message: str) -> None:
    with pytest.raises(kind, match=f"(?s)gs://bucket/x.*{message}") as caught:  # noqa: SIM117
        with explained("fetch", "gs://bucket/x"):
            raise error
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is error
