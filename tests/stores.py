"""Remote stores for tests: a real S3 server on a port of this machine, and one in memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from evaluator.remote import RemotePath, addresses
from tests.waiting import until

SECRET = "a-secret-that-nobody-may-see"
"""In the environment of every test with a store; no message, table or log may hold it."""


def forget_clients() -> None:
    """Clients are kept for the process, with the environment in which they were made."""
    import fsspec

    addresses._client.cache_clear()
    for kind in ("s3", "memory"):
        try:
            fsspec.get_filesystem_class(kind).clear_instance_cache()
        except ImportError:
            continue


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of moto's server, in a process of its own."""
    missing = [name for name in ("moto", "flask", "flask_cors", "s3fs") if not find_spec(name)]
    if missing:
        pytest.skip(f"NOT TESTED against S3: {missing} not installed (pip install -e '.[test]')")
    log = tmp_path_factory.mktemp("s3") / "log"
    # A free port may be anybody's before the server has it: then another one.
    for _ in range(3):
        endpoint, server = _started(free_port(), log)
        if server.poll() is None:
            break
    try:
        assert server.poll() is None, log.read_text()
        forget_clients()
        yield endpoint
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()


def _started(port: int, log: Path) -> tuple[str, subprocess.Popen[bytes]]:
    """The server's endpoint and process; it answers, or has ended already."""
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    # A long time after the tests it ends by itself, should they be killed.
    with log.open("wb") as file:
        server = subprocess.Popen(
            ["timeout", "7200", *command], stdout=file, stderr=file, env=_server_environment()
        )

    def answers() -> bool:
        try:
            urlopen(f"{endpoint}/moto-api/", timeout=5).close()
        except OSError:
            return server.poll() is not None
        return True

    try:
        until("the S3 server answers", answers)
    except AssertionError as error:
        server.kill()
        raise AssertionError(f"{error}: {log.read_text()}") from None
    return endpoint, server


def _server_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


@pytest.fixture
def s3_environment(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Credentials and endpoint where S3's own client looks for them."""
    settings = {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def fresh_clients() -> Iterator[None]:
    """For tests with an environment of their own: no client of others, and none for others."""
    forget_clients()
    yield
    forget_clients()


def check_credentials(endpoint: str, whether: bool) -> None:
    """Let the server refuse keys that it does not know, or take any."""
    address, count = f"{endpoint}/moto-api/reset-auth", b"0" if whether else b"999999"
    headers = {"Content-Type": "text/plain"}
    urlopen(Request(address, data=count, headers=headers, method="POST"), timeout=30).close()


@pytest.fixture
def bucket(s3_environment: str) -> RemotePath:
    """A new, empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    urlopen(Request(f"{s3_environment}/{name}", method="PUT"), timeout=30).close()
    return RemotePath(f"s3://{name}")


@pytest.fixture(params=["s3", "memory"])
def store(request: pytest.FixtureRequest) -> RemotePath:
    """A new, empty place in each kind of store."""
    if request.param == "s3":
        return request.getfixturevalue("bucket") / "some" / "folder"
    return RemotePath(f"memory://{uuid.uuid4().hex}") / "folder"


@pytest.fixture
def memory() -> RemotePath:
    """A new, empty place in memory: for what does not depend on the kind of store."""
    return RemotePath(f"memory://{uuid.uuid4().hex}") / "folder"


@pytest.fixture
def upload() -> Callable[[Path, RemotePath], RemotePath]:
    """Copy a file or a folder to an address."""

    def copy(path: Path, to: RemotePath) -> RemotePath:
        if path.is_file():
            to.put(path)
        for file in sorted(path.rglob("*")):
            if file.is_file():
                (to / file.relative_to(path).as_posix()).put(file)
        return to

    return copy


def delete(remote: RemotePath) -> None:
    """Remove one file."""
    store, path = remote._store()
    store.rm_file(path)
