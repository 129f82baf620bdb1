"""Published files: fetched once, judged by their hash, and a way by hand when there is no way."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from evaluator.errors import InputError
from evaluator.features.fetch import PublishedFile, fetch_published
from tests.waiting import PATIENCE, beside

CONTENT = bytes(range(256)) * 4096


class Server(ThreadingHTTPServer):
    """Serves one content, counts how often, and can be made to wait half-way."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.announced = len(CONTENT)
        self.asked = 0
        self.half_sent = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.path != "/weights.pth":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.announced))
        self.end_headers()
        half = len(self.server.content) // 2
        try:
            self.wfile.write(self.server.content[:half])
            self.wfile.flush()
            self.server.half_sent.set()
            assert self.server.go_on.wait(PATIENCE)
            self.wfile.write(self.server.content[half:])
        except (BrokenPipeError, ConnectionResetError):
            pass

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running, beside(partial(running.serve_forever, poll_interval=0.02)):
        yield running
        running.go_on.set()
        running.shutdown()


@pytest.fixture
def file(server: Server) -> PublishedFile:
    url = f"http://127.0.0.1:{server.server_port}/weights.pth"
    return PublishedFile("weights.pth", url, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def start(file: PublishedFile, folder: Path) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(
        target=fetch_published, args=(file, folder), daemon=True
    )
    process.start()
    return process


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_a_file_is_fetched_once_and_then_found(
    server: Server, file: PublishedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch_published(file, tmp_path / "new")
    assert path.read_bytes() == CONTENT
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch_published(file, tmp_path / "new") == path
    assert server.asked == 1
    assert left_in(tmp_path / "new") == {"weights.pth"}


def test_two_processes_at_once_fetch_once(
    server: Server, file: PublishedFile, tmp_path: Path
) -> None:
    server.go_on.clear()
    processes = [start(file, tmp_path) for _ in range(2)]
    assert server.half_sent.wait(PATIENCE)
    time.sleep(0.5)  # the second process has the time to ask as well, if nothing stops it
    server.go_on.set()
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert server.asked == 1
    assert left_in(tmp_path) == {"weights.pth"}


def test_a_killed_fetch_stops_nobody(server: Server, file: PublishedFile, tmp_path: Path) -> None:
    server.go_on.clear()
    process = start(file, tmp_path)
    assert server.half_sent.wait(PATIENCE)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)
    assert not (tmp_path / "weights.pth").exists()
    server.go_on.set()
    assert fetch_published(file, tmp_path).read_bytes() == CONTENT
    assert left_in(tmp_path) == {"weights.pth"}


def test_another_content_is_refused_and_thrown_away(
    server: Server, file: PublishedFile, tmp_path: Path
) -> None:
    server.content = CONTENT[::-1]
    got = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(InputError, match=f"expected a file with SHA-256 {file.sha256}, got {got}"):
        fetch_published(file, tmp_path)
    assert left_in(tmp_path) == set()


def test_more_than_was_published_is_not_read(
    server: Server, file: PublishedFile, tmp_path: Path
) -> None:
    server.content = CONTENT * 8
    server.announced = len(server.content)
    with pytest.raises(InputError, match=rf"\({len(CONTENT) + 1} bytes\)"):
        fetch_published(file, tmp_path)


def test_a_connection_that_breaks_off_leaves_nothing(
    server: Server, file: PublishedFile, tmp_path: Path
) -> None:
    server.announced = len(CONTENT) + 7
    with pytest.raises(InputError, match="got neither|expected a file with SHA-256"):
        fetch_published(replace(file, max_bytes=len(CONTENT) * 2, sha256="0" * 64), tmp_path)
    assert left_in(tmp_path) == set()


def test_a_spoilt_file_in_the_cache_is_fetched_anew(
    server: Server, file: PublishedFile, tmp_path: Path
) -> None:
    (tmp_path / "weights.pth").write_bytes(b"a part of it")
    assert fetch_published(file, tmp_path).read_bytes() == CONTENT


def test_without_a_network_the_way_by_hand_is_named(
    server: Server, file: PublishedFile, tmp_path: Path
) -> None:
    away = replace(file, url=file.url.replace("weights", "elsewhere"))
    with pytest.raises(InputError, match="got neither .*404.* Fetch http.* or name it with `id`"):
        fetch_published(away, tmp_path)
    nobody = replace(file, url="http://127.0.0.1:9/weights.pth")
    with pytest.raises(
        InputError, match="got neither .*refused.* Fetch http.* copy it to .*weights.pth"
    ):
        fetch_published(nobody, tmp_path)
    assert left_in(tmp_path) == set()
