"""`hf://` against a small hub on this machine: listed, fetched, and read by ranges."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from evaluator.data import open_source, pack

REPOSITORY = "/api/datasets/org/name"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as its file system asks for. `folder` is the data set."""

    folder: Path

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == REPOSITORY or path.startswith(f"{REPOSITORY}/revision/"):
            self._send({"id": "org/name", "sha": "a" * 40, "siblings": []})
        elif path.startswith(f"{REPOSITORY}/tree/main"):
            self._tree(path.removeprefix(f"{REPOSITORY}/tree/main").lstrip("/"))
        elif path.startswith("/datasets/org/name/resolve/main/"):
            self._file(path.removeprefix("/datasets/org/name/resolve/main/"))
        else:
            self._send({}, 404, {"X-Error-Code": "RepoNotFound"})

    def _tree(self, below: str) -> None:
        files = [p for p in sorted(self.folder.rglob("*")) if p.is_file()]
        names = {p.relative_to(self.folder).as_posix(): p.stat().st_size for p in files}
        listed = [
            {"type": "file", "oid": f"{size:040x}", "size": size, "path": name}
            for name, size in names.items()
            if not below or name.startswith(f"{below}/")
        ]
        if listed:
            self._send(listed)
        else:
            self._send({}, 404, {"X-Error-Code": "EntryNotFound"})

    def _file(self, name: str) -> None:
        data, headers = (self.folder / name).read_bytes(), {"X-Repo-Commit": "a" * 40}
        headers["ETag"] = f'"{len(data):040x}"'
        if wanted := self.headers.get("Range"):
            first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            self._send(data[first : last + 1], 206, headers)
        else:
            self._send(data, 200, headers)

    def _send(self, body: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "hub").mkdir()
    handler = type("OurHub", (Hub,), {"folder": tmp_path / "hub"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


SCRIPT = """
import sys
from pathlib import Path
from evaluator.data import open_source
from evaluator.errors import EvaluatorError
for number, address in enumerate(sys.argv[2:]):
    try:
        found = open_source(address, cache=Path(sys.argv[1]))
        read = [found.read(key, part) for key in found.keys for part in found.parts(key)]
        print(found.fingerprint, len(read))
    except EvaluatorError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_data_set_on_the_hub_is_a_source(make_folder, make_picture, hub, tmp_path: Path) -> None:
    images = make_folder({f"{i}.png": make_picture(i) for i in range(3)}, name="hub/images")
    (tmp_path / "hub" / "prompts.txt").write_text("a cat\na dog\n")
    pack(images, tmp_path / "hub" / "pack")
    here = [tmp_path / "hub" / name for name in ("images", "prompts.txt", "prompts.txt", "pack")]
    expected = [open_source(path, cache=tmp_path / "here") for path in here]
    # The hub's client reads its environment when it is imported: a process of its own.
    environment = {name: os.environ[name] for name in os.environ if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    names = ("name/images", "name/prompts.txt", "name@main/prompts.txt", "name/pack",
             "name/none.txt", "other/x.txt")  # fmt: skip
    addresses = [f"hf://datasets/org/{name}" for name in names]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "there"), *addresses],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    counts = (6, 2, 2, 6)  # a description of each, and the images
    assert lines[:4] == [
        f"{found.fingerprint} {count}" for found, count in zip(expected, counts, strict=True)
    ], done.stderr
    assert "none.txt: expected a file or folder, got nothing there" in lines[4]
    assert "got nothing there; check the address; what is private needs HF_TOKEN" in lines[5]
