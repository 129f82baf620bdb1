"""`evaluator leaderboard` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.leaderboard.synthetic import SetNumber, make_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for i, name in enumerate("ab"):
        make_run(tmp_path / "runs" / name, [SetNumber("fid", 10.0 + i), SetNumber("kid", 1.0)])
    return tmp_path / "runs"


def test_board_is_printed_and_written_where_one_stands(call, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("leaderboard", str(runs))
    assert done.status == 0, done.err
    assert "fid ↓" in done.out
    assert "10.000 ± 0.500 [1]" in done.out
    assert done.out.rstrip().endswith("leaderboard/index.html")
    assert (tmp_path / "leaderboard/leaderboard.md").is_file()


def test_json_goes_to_the_output_alone(call, runs, tmp_path):
    done = call(
        "leaderboard", str(runs), "--json", "-", "--output", str(tmp_path / "out"),
        "--metrics", "kid, fid", "--sort", "fid",
    )  # fmt: skip
    record = json.loads(done.out)
    assert [column["id"] for column in record["columns"]] == ["kid", "fid"]
    assert record["sort"] == "fid"
    assert "fid ↓" in done.err


def test_json_goes_to_a_file_too(call, runs, tmp_path):
    call(
        "leaderboard",
        str(runs),
        "--json",
        str(tmp_path / "b.json"),
        "--output",
        str(tmp_path / "o"),
    )
    assert json.loads((tmp_path / "b.json").read_bytes()) == json.loads(
        (tmp_path / "o/leaderboard.json").read_bytes()
    )


def test_broken_citations_end_with_status_1_after_the_measured_rows(call, runs, tmp_path):
    (tmp_path / "cited.yaml").write_text("rows: [{name: x, source: y, valeus: {fid: 1}}]")
    done = call(
        "leaderboard", str(runs), "--cited", str(tmp_path / "cited.yaml"),
        "--output", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.status == 1
    assert "fid ↓" in done.out
    assert "failed: " in done.err
    assert "rows.0.valeus: unknown key; did you mean 'values'?" in done.err


def test_a_named_path_without_a_run_ends_with_status_1_after_the_others(call, runs, tmp_path):
    done = call("leaderboard", str(runs), str(tmp_path / "gone"), "--output", str(tmp_path / "out"))
    assert done.status == 1
    assert "fid ↓" in done.out
    assert f"failed: {tmp_path / 'gone'}: expected a run directory" in done.err


def test_no_run_at_all_is_bad_usage(call, tmp_path):
    done = call("leaderboard", str(tmp_path / "gone"), "--output", str(tmp_path / "out"))
    assert done.status == 2
    assert "expected at least one run with numbers, got none" in done.err
    assert not (tmp_path / "out").exists()


def test_folder_of_others_is_refused_before_anything_is_read(call, runs, tmp_path):
    done = call("leaderboard", str(runs), "--output", str(runs))
    assert done.status == 2
    assert (
        "expected a new folder, an empty one or one that `evaluator leaderboard` wrote" in done.err
    )
