"""Imports point strictly down, and heavy packages stay out of the way of `--help`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import evaluator

ROOT = Path(evaluator.__file__).parent
FLOORS = {
    "errors": 0, "records": 1, "seeds": 1, "locations": 1, "srun": 1, "text": 1,
    "protocols": 2, "config": 2, "plugins": 2, "distributed": 2, "weights": 2,
    "durable": 2, "remote": 2, "stopping": 2, "pipelines": 2,
    "data": 3, "store": 3, "models": 3, "features": 3, "metrics": 3, "probes": 3,
    "aggregate": 4, "statistics": 4,
    "runner": 5, "comparison": 5, "leaderboard": 5, "runs": 5,
    "report": 6, "probing": 6, "demo": 6, "export": 6,
    "study": 7, "cli": 8, "__init__": 9, "__main__": 9,
}  # fmt: skip
"""Room → floor. Siblings do not import each other; `errors` lies under all."""


def imports(path: Path) -> set[str]:
    """The rooms that a module imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "evaluator":
                names = [f"evaluator.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "evaluator" and len(parts) > 1 and not parts[1].startswith("__"):
                found.add(parts[1])
    return found


def room(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


MODULES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_strictly_down(path: Path) -> None:
    here = room(path)
    for other in imports(path) - {here}:
        assert FLOORS[other] < FLOORS[here], f"{path}: {here} must not import {other}"


def test_report_and_runner_meet_on_disk_only() -> None:
    for path in (ROOT / "report").rglob("*.py"):
        assert not imports(path) & {"runner", "demo", "cli"}, path


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 320, f"{path}: one idea a module"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = (
                (node.end_lineno or 0)
                - node.lineno
                - len((ast.get_docstring(node) or "").splitlines())
            )
            assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from evaluator.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'accelerate', 'webdataset', 'pyarrow',\n"
        "         'fsspec'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout


def test_no_room_is_called_after_nothing() -> None:
    names = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    assert not names & {"utils", "helpers", "common", "manager", "handler"}
