"""References that several evaluations want at once, and groups that several processes compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.runner.conftest import bytes_of, launch
from tests.runner.test_worlds import start

DIGITS = "package://evaluator/demo/data/test.parquet"
SETTINGS: dict[str, Any] = {
    "name": "digits",
    "model": {"kind": "images"},
    "prompts": {"source": DIGITS, "limit": 90},
    "references": {
        "real": {"source": DIGITS, "limit": 300},
        "unseen": {"source": DIGITS, "limit": 120},
    },
    "features": ["digits"],
    "metrics": [
        {"name": "fd_digits", "reference": "real", "by": "background"},
        {"name": "memorized_fraction_digits", "reference": "real", "by": "background"},
        {"name": "ct_digits", "reference": "real", "held_out": "unseen"},
    ],
    "runtime": {"threads": 1, "batch_size": 8, "shard_size": 16},
}


def records(run: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((run / "metrics.json").read_text())["metrics"]
    return found


def assert_same_records(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Whole and by group: values to 12 significant digits, warnings and counts to the letter."""
    assert [(r["name"], r["group"], r["n"]) for r in ours] == [
        (r["name"], r["group"], r["n"]) for r in theirs
    ]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["value"] == pytest.approx(other["value"], rel=1e-12)
        assert mine["warnings"] == other["warnings"]
        assert (mine["interval"] is None) == (other["interval"] is None)
        for end in ("low", "high") if mine["interval"] else ():
            assert mine["interval"][end] == pytest.approx(
                other["interval"][end], rel=1e-9, abs=1e-9
            )


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))
    return path


def test_groups_are_the_same_from_two_processes(config_file: Path, tmp_path: Path) -> None:
    arguments = ["run", str(config_file), "--output"]
    one = launch("python", 1, [*arguments, str(tmp_path / "one")], cache=tmp_path / "cache")
    two = launch("accelerate", 2, [*arguments, str(tmp_path / "two")], cache=tmp_path / "cache2")
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    alone = records(tmp_path / "one")
    groups = {tuple(record["group"].items()) for record in alone if record["group"]}
    assert len(groups) > 1
    assert all(record["value"] is not None for record in alone)
    assert_same_records(alone, records(tmp_path / "two"))
    tables = [
        {path.name: path.read_bytes() for path in (tmp_path / run / "metrics").iterdir()}
        for run in ("one", "two")
    ]
    assert tables[0] == tables[1] != {}


def test_evaluations_that_start_at_once_share_one_reference(
    config_file: Path, tmp_path: Path
) -> None:
    runs = [tmp_path / f"run{number}" for number in range(3)]
    workers = [start(config_file, run, tmp_path / "cache") for run in runs]
    outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], outputs
    references = sorted((tmp_path / "cache" / "references").iterdir())
    assert len(references) == 2
    again = launch(
        "python", 1, ["run", str(config_file), "--output", str(tmp_path / "later")],
        cache=tmp_path / "other",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    undisturbed = sorted((tmp_path / "other" / "references").iterdir())
    for shared, own in zip(references, undisturbed, strict=True):
        assert shared.name == own.name
        assert bytes_of(shared) == bytes_of(own)
        assert not list((shared / "staging").iterdir())
    for run in runs:
        assert_same_records(records(run), records(tmp_path / "later"))
