"""Machines of one host: each a network, a host name and process ids of its own, one file system."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.packages import install

LINK = "machines"
"""Name of the network interface that joins the machines, on each of them."""

SEPARATE = ("--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
"""What `unshare` parts from the host, beside the network."""


def unavailable() -> str | None:
    """Why there can be no machines here; None where there can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    if shutil.which("ip") is None and (why := install("iproute2")) is not None:
        return why
    tried = subprocess.run(
        ["unshare", "--net", *SEPARATE, "true"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip() or None if tried.returncode else None


@dataclass
class Machine:
    """A network namespace with one address on the link, and what was started in it."""

    name: str
    address: str
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, command: str, *arguments: str, folder: Path) -> subprocess.Popen[str]:
        """Run a line of bash there, under the machine's own host name and process ids."""
        inside = f'hostname "{self.name}" && {command}'
        process = subprocess.Popen(
            [
                "ip", "netns", "exec", self.name, "unshare", *SEPARATE,
                "bash", "-c", inside, "bash", *arguments,
            ],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._started.append(process)
        return process

    def lose(self) -> None:
        """Everything on it ends at once, as if its power were cut."""
        for process in self._started:
            if process.poll() is None:
                # `ip` became `unshare`, with whose end the kernel kills all of its namespace.
                process.send_signal(signal.SIGKILL)
                process.wait(30)

    def cut_off(self) -> None:
        """Its network is gone; what runs there goes on."""
        _ip("-n", self.name, "link", "set", LINK, "down")


@contextlib.contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Two machines that reach each other, and nothing else; gone afterwards."""
    # Addresses of TEST-NET-1, which no network has.
    pair = [Machine(f"machine-{i}-{os.getpid()}", f"192.0.2.{i + 1}") for i in range(2)]
    try:
        for machine in pair:
            _ip("netns", "add", machine.name)
        first, second = pair
        _ip(
            "link", "add", LINK, "netns", first.name,
            "type", "veth", "peer", "name", LINK, "netns", second.name,
        )  # fmt: skip
        for machine in pair:
            _ip("-n", machine.name, "addr", "add", f"{machine.address}/24", "dev", LINK)
            for link in ("lo", LINK):
                _ip("-n", machine.name, "link", "set", link, "up")
        yield first, second
    finally:
        for machine in pair:
            machine.lose()
            subprocess.run(["ip", "netns", "del", machine.name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
