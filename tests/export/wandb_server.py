"""A server on the loopback that takes what `wandb sync` sends, and keeps it to be looked at.

It answers the few requests that the sync of a run with figures and files makes, and refuses and
notes any other: a run that needs more than its own folder, or a release of wandb that asks for
more, is told.
"""

from __future__ import annotations

import gzip
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "somebody"


@dataclass
class Arrived:
    """What a sync sent."""

    run: dict[str, Any] = field(default_factory=dict)
    """Variables of the mutation that makes or changes a run: name, displayName, project, …"""
    lines: dict[str, list[str]] = field(default_factory=dict)
    """Streamed file → its lines: `wandb-history.jsonl`, `wandb-summary.json`."""
    files: dict[str, bytes] = field(default_factory=dict)
    """File of the run → its content."""
    unknown: list[str] = field(default_factory=list)
    """Requests that were refused."""
    finished: bool = False
    """Whether the stream ended."""

    @property
    def config(self) -> dict[str, Any]:
        """The run's settings as the server got them last."""
        return {name: each["value"] for name, each in json.loads(self.run["config"]).items()}

    def rows(self, name: str) -> list[dict[str, Any]]:
        """A streamed file's lines, read."""
        return [json.loads(line) for line in self.lines[name]]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        content = self._content()
        with self.server.lock:
            if self.path == "/graphql":
                asked = json.loads(content)
                variables = asked.get("variables") or {}
                self._answer(self.server.graphql(asked.get("operationName", ""), variables))
            elif self.path.endswith("/file_stream"):
                self.server.stream(json.loads(content))
                self._answer({})
            elif self.path.startswith("/sdk/otel/"):  # how wandb itself fares
                self._answer({})
            else:
                self._answer(self.server.refuse(f"POST {self.path}"))

    def do_PUT(self) -> None:
        content = self._content()
        with self.server.lock:
            self.server.arrived.files[self.path.removeprefix("/storage/")] = content
        self._answer({})

    def do_GET(self) -> None:
        with self.server.lock:
            self._answer(self.server.refuse(f"GET {self.path}"))

    def _content(self) -> bytes:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        packed = self.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(content) if packed else content

    def _answer(self, record: dict[str, Any] | None) -> None:
        content = json.dumps(record or {}).encode()
        self.send_response(400 if record is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.arrived = Arrived()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Note what failed here; a client that hangs up does nothing wrong."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):
            self.arrived.unknown.append(repr(error))

    def refuse(self, request: str) -> None:
        self.arrived.unknown.append(request)

    def stream(self, record: dict[str, Any]) -> None:
        for name, part in (record.get("files") or {}).items():
            lines = self.arrived.lines.setdefault(name, [])
            lines[part["offset"] :] = part["content"]
        self.arrived.finished |= bool(record.get("complete"))

    def graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "RunResumeStatus": lambda _: {"model": None},
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "UpsertBucket": self._run,
            "CreateRunFiles": self._run_files,
        }
        if operation not in answers:
            self.refuse(operation)
            return None
        return {"data": answers[operation](variables)}

    def _run(self, variables: dict[str, Any]) -> dict[str, Any]:
        self.arrived.run |= {name: v for name, v in variables.items() if v is not None}
        said = self.arrived.run
        project = {"id": "p", "name": said["project"], "entity": {"id": "e", "name": ENTITY}}
        bucket = {
            "id": "r", "name": said["name"], "displayName": said["displayName"],
            "description": None, "config": said["config"], "sweepName": None,
            "historyLineCount": 0, "project": project,
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _run_files(self, variables: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": n, "uploadUrl": self._place(n)} for n in variables["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def _place(self, name: str) -> str:
        return f"{self.address}/storage/{name}"


@contextmanager
def recording() -> Iterator[tuple[str, Arrived]]:
    """The address of a server that keeps what arrives, and what has arrived."""
    server = _Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.address, server.arrived
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
