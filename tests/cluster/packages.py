"""Debian's packages that some tests need."""

from __future__ import annotations

import os
import shutil
import subprocess


def install(*packages: str) -> str | None:
    """Install packages where that is allowed; returns why they are not there, or None."""
    wanted = f"expected Debian's packages {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return f"{wanted}; they can only be installed as root with apt-get"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (
        ["update"], ["install", "--yes", "--no-install-recommends", *packages],
    ):  # fmt: skip
        done = subprocess.run(
            ["apt-get", *arguments], env=environment, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        if done.returncode:
            return f"{wanted}; apt-get {arguments[0]} failed: {done.stdout[-500:]}"
    return None
