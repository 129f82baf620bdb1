"""Trackers that like to keep state everywhere write from a process that can only write here.

Its home is a temporary folder and its environment holds no key and no address, so that nothing
but the output folder changes and nothing is sent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from evaluator.durable import explained
from evaluator.errors import ConfigError, EvaluatorError
from evaluator.export.tracked import Tracked
from evaluator.text import plain

SECONDS = 900.0
"""After which a tracker that hangs is ended."""

REFUSED = 3
"""Exit status of a process that will not write, and says why."""

_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")


def write_apart(
    module: str,
    runs: Sequence[Tracked],
    folder: Path,
    *,
    project: str,
    environment: Mapping[str, str],
    overwrite: bool = False,
) -> None:
    """Hand runs to `python -m module`; EvaluatorError where that fails."""
    handed = {
        "folder": str(folder.resolve()),
        "project": project,
        "overwrite": overwrite,
        "runs": [run.record() for run in runs],
    }
    with explained("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="evaluator-export-") as home:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        own = {
            "HOME": home,
            "TMPDIR": home,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": f"{home}/huggingface",
            "XDG_CACHE_HOME": f"{home}/cache",
            "XDG_CONFIG_HOME": f"{home}/config",
        }
        try:
            done = subprocess.run(
                [sys.executable, "-m", module],
                input=json.dumps(handed),
                capture_output=True, text=True, timeout=SECONDS, check=False, cwd=home,
                env={**kept, **own, **environment},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise EvaluatorError(
                f"{folder}: expected the tracker to write {len(runs)} runs, got no end within "
                f"{SECONDS:g} s. Export fewer runs, or with --images 0."
            ) from None
    last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
    if done.returncode == REFUSED:
        raise ConfigError(plain(last, limit=1000))
    if done.returncode != 0:
        raise EvaluatorError(
            f"{folder}: expected the tracker to write {len(runs)} runs, got: "
            f"{plain(last, limit=400)}. Its package may be broken: install it again."
        )


class Received(NamedTuple):
    """What that process is to write."""

    folder: Path
    project: str
    overwrite: bool
    runs: list[Tracked]


def received() -> Received:
    """In that process: what was handed to it."""
    handed = json.load(sys.stdin)
    runs = [Tracked.from_record(record) for record in handed["runs"]]
    return Received(Path(handed["folder"]), handed["project"], handed["overwrite"], runs)


def refuse(reason: str) -> NoReturn:
    """In that process: end it; the user reads the reason."""
    print(plain(reason), file=sys.stderr)
    sys.exit(REFUSED)
