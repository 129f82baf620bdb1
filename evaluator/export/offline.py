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

from evaluator.durable import explained
from evaluator.errors import EvaluatorError
from evaluator.export.tracked import Tracked
from evaluator.text import plain

SECONDS = 900.0
"""After which a tracker that hangs is ended."""

_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")


def write_apart(
    module: str,
    runs: Sequence[Tracked],
    folder: Path,
    *,
    project: str,
    environment: Mapping[str, str],
) -> None:
    """Hand runs to `python -m module FOLDER PROJECT`; EvaluatorError where that fails."""
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
                [sys.executable, "-m", module, str(folder.resolve()), project],
                input=json.dumps([run.record() for run in runs]),
                capture_output=True, text=True, timeout=SECONDS, check=False, cwd=home,
                env={**kept, **own, **environment},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise EvaluatorError(
                f"{folder}: expected the tracker to write {len(runs)} runs, got no end within "
                f"{SECONDS:g} s. Export fewer runs, or with --images 0."
            ) from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise EvaluatorError(
            f"{folder}: expected the tracker to write {len(runs)} runs, got: "
            f"{plain(last, limit=400)}. Its package may be broken: install it again."
        )


def received() -> tuple[Path, str, list[Tracked]]:
    """In that process: the folder, the project, and the runs."""
    records = json.load(sys.stdin)
    return Path(sys.argv[1]), sys.argv[2], [Tracked.from_record(record) for record in records]
