"""Runs that cannot be shown, or not wholly: said plainly, and the rest is shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from evaluator.errors import ConfigError, InputError
from evaluator.leaderboard import Board, leaderboard
from evaluator.runs import find_runs, left_out
from tests.leaderboard.synthetic import SetNumber, make_run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for i, name in enumerate("abc"):
        make_run(folder / name, [SetNumber("fid", 10.0 + 5 * i), SetNumber("kid", 1.0 + i)])
    return folder


def board_of(*paths: Path) -> Board:
    return leaderboard(paths, num_resamples=20)


def names(board: Board) -> list[str]:
    return sorted(row.name for row in board.rows)


def test_a_folder_of_runs_stands_for_every_run_in_it(runs: Path) -> None:
    assert names(board_of(runs)) == ["a", "b", "c"]
    assert names(board_of(runs.parent)) == ["a", "b", "c"]
    assert names(board_of(runs, runs / "a", runs / "a")) == ["a", "b", "c"]


def test_a_run_without_numbers_is_a_remark_in_a_folder_and_a_fault_by_name(runs: Path) -> None:
    (runs / "b/metrics.json").unlink()
    board = board_of(runs)
    assert names(board) == ["a", "c"]
    (remark,) = board.remarks
    assert remark.startswith(
        f"{runs / 'b'}: metrics.json: expected numbers, got no such file: this run has not"
    )
    assert board.faults == ()
    assert board_of(runs / "a", runs / "b").faults == (remark,)


def test_a_run_that_lost_a_shard_since_says_so_beside_its_numbers(
    runs: Path, tmp_path: Path
) -> None:
    whole = make_run(tmp_path / "whole", [SetNumber("fid", 12.0)], num_prompts=600)
    kept = [whole / f"shards/{index:05d}" for index in range(3)]
    assert not any("lost" in said for row in board_of(whole, runs).rows for said in row.warnings)
    for folder in kept:
        folder.mkdir(parents=True)
    assert not any("lost" in said for row in board_of(whole, runs).rows for said in row.warnings)
    kept[1].rmdir()
    (row,) = [row for row in board_of(whole, runs).rows if row.name == "whole"]
    assert row.warnings == ("lost 1 shard since its numbers were computed; continue the run",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "metrics.json: expected numbers, got a file that cannot be read (Expecting"),
        (b"\xff\xfe", "got a file that cannot be read ("),
        (b"[" * 100_000, "got a file that cannot be read ("),
        (b"[]", "got a file that does not hold them (expected its format and a list of metrics)"),
        (
            b'{"format": 1, "metrics": 5}',
            "does not hold them (expected its format and a list of metrics)",
        ),
        (b'{"format": 2, "metrics": []}', "expected format 1 or older, got 2. Use the evaluator"),
        (b'{"format": 1, "metrics": [7]}', "expected numbers, got none that can be read"),
    ],
)
def test_damaged_numbers_are_said_and_the_rest_is_shown(
    runs: Path, content: bytes, says: str
) -> None:
    (runs / "b/metrics.json").write_bytes(content)
    board = board_of(runs)
    assert names(board) == ["a", "c"]
    assert says in board.remarks[0]


@pytest.mark.parametrize(
    "damage",
    [
        {"value": "12"}, {"n": None}, {"interval": {"low": 3.0, "high": 1.0, "level": 0.95}},
        {"interval": [1, 2]}, {"name": 7}, {"surprise": 1}, {"value": True},
    ],
)  # fmt: skip
def test_a_damaged_entry_is_left_out_and_counted(runs: Path, damage: dict[str, object]) -> None:
    path = runs / "b/metrics.json"
    record = json.loads(path.read_bytes())
    record["metrics"][0].update(damage)
    path.write_text(json.dumps(record))
    board = board_of(runs)
    assert board.cell("b", "fid") is None
    assert board.cell("b", "kid") is not None
    (row,) = [row for row in board.rows if row.name == "b"]
    assert row.warnings == ("left out: an entry of metrics.json that cannot be read",)


def test_runs_that_never_met_are_told_apart_and_not_blamed_for_it(runs: Path) -> None:
    for name in "xy":
        make_run(runs / name, [SetNumber("fid", 3.0)], prompts="c" * 64, num_prompts=30)
    (remark,) = board_of(runs).remarks
    assert remark == (
        "these groups of runs share no ranked metric, so win rates and places are comparable "
        "within a group only: a; b; c | x; y"
    )


def test_a_run_that_lacks_a_metric_is_ranked_by_the_others(runs: Path) -> None:
    make_run(runs / "d", [SetNumber("kid", 0.5)])
    board = board_of(runs)
    assert board.cell("d", "fid") is None
    counts = {standing.row: standing.num_metrics for standing in board.standings}
    assert counts == {"a": 2, "b": 2, "c": 2, "d": 1}
    assert board.remarks == ("d: its win rate stands on 1 of 2 metrics; compare it with care",)


def test_two_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    for path in ("x/sd", "y/sd", "y/other"):
        make_run(tmp_path / path, [SetNumber("fid", 1.0)], name="sd21")
    assert names(board_of(tmp_path)) == ["x/sd", "y/other", "y/sd"]


def test_an_incomplete_run_says_so_and_is_not_ranked(runs: Path) -> None:
    make_run(runs / "d", [SetNumber("fid", 0.5, n=40)], committed=40)
    board = board_of(runs)
    found = board.cell("d", "fid")
    assert found is not None
    assert found.reason == "not comparable: 40 of 100 samples"
    (row,) = [row for row in board.rows if row.name == "d"]
    assert row.warnings == ("incomplete: 40 of 100 samples",)


def test_numbers_of_an_earlier_request_say_so(runs: Path) -> None:
    path = runs / "b/asked.json"
    record = json.loads(path.read_bytes())
    record["request"]["metrics"].append({"name": "cmmd"})
    path.write_text(json.dumps(record))
    (row,) = [row for row in board_of(runs).rows if row.name == "b"]
    assert "answer an earlier request" in row.warnings[0]


def test_lost_settings_cost_a_run_its_columns_of_provenance_only(runs: Path) -> None:
    (runs / "b/init/config.yaml").write_text("{broken")
    (runs / "b/init/provenance.json").unlink()
    board = board_of(runs)
    (row,) = [row for row in board.rows if row.name == "b"]
    assert row.provenance.steps is None
    assert "init/config.yaml cannot be read" in row.warnings[0]
    found = board.cell("b", "kid")
    assert found is not None
    assert found.value == 2.0


def test_shards_are_not_read(runs: Path) -> None:
    for name in "abc":
        shutil.rmtree(runs / name / "shards")
        (runs / name / "init/plan.parquet").unlink()
    assert len(board_of(runs).standings) == 3


def test_what_is_no_run_is_named_with_what_is_there(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    board = board_of(runs, tmp_path / "file", tmp_path / "empty", tmp_path / "gone")
    assert names(board) == ["a", "b", "c"]
    for fault, found in zip(
        board.faults, ("got a file", "got a folder without any", "got nothing there"), strict=True
    ):
        assert "expected a run directory" in fault
        assert found in fault


def test_no_run_at_all_is_an_error_with_every_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="(?s)at least one run with numbers, got none.*gone.*lost"):
        board_of(tmp_path / "gone", tmp_path / "lost")


def test_unknown_names_are_met_with_a_near_miss(runs: Path) -> None:
    with pytest.raises(
        ConfigError, match="expected a metric that a run has, got 'fidd'; did you mean 'fid'"
    ):
        leaderboard([runs], metrics=["fidd"])
    with pytest.raises(
        ConfigError, match="--sort clip: expected a column of this board; choose one"
    ):
        leaderboard([runs], sort="clip", num_resamples=20)
    with pytest.raises(
        ConfigError, match=r"--by region: expected a tag .* \(there is none\). Or add `by: region`"
    ):
        leaderboard([runs], by="region", num_resamples=20)


def test_settings_that_refer_to_themselves_are_told_shortly(runs: Path) -> None:
    levels = ["x0: &x0 [a, a, a, a, a, a, a, a]"]
    levels += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 8)}]" for i in range(1, 30)]
    bomb = "\n".join(f"  {line}" for line in levels)
    (runs / "b/init/config.yaml").write_text(f"name: b\ngeneration: {{steps: 3}}\nmodel:\n{bomb}\n")
    maps = ["y0: &y0 {}"]
    maps += [
        f"y{i}: &y{i} {{{', '.join(f'k{k}: *y{i - 1}' for k in range(8))}}}" for i in range(1, 30)
    ]
    (runs / "c/init/config.yaml").write_text(
        "name: c\nmodel:\n" + "\n".join(f"  {m}" for m in maps)
    )
    board = board_of(runs)
    (row,) = [row for row in board.rows if row.name == "b"]
    assert row.provenance.steps == 3
    assert max(len(str(value)) for value in row.settings.values()) < 1000


def test_numbers_that_no_float_holds_are_damage(runs: Path) -> None:
    path = runs / "b/metrics.json"
    record = json.loads(path.read_bytes())
    record["metrics"][0]["value"] = 10**400
    path.write_text(json.dumps(record))
    assert board_of(runs).cell("b", "fid") is None


def test_whole_numbers_beyond_64_bits_are_damage_and_no_settings(runs: Path) -> None:
    path = runs / "b/metrics.json"
    record = json.loads(path.read_bytes())
    record["metrics"][0] |= {"n": 2**70, "n_expected": 2**70}
    path.write_text(json.dumps(record))
    vast = "0x" + "f" * 5000  # Python does not write numbers of so many digits
    (runs / "c/init/config.yaml").write_text(f"name: c\ngeneration: {{seed: {vast}}}\n")
    board = board_of(runs)
    assert board.cell("b", "fid") is None
    (row,) = [row for row in board.rows if row.name == "c"]
    assert row.provenance.seed is None
    assert row.settings["generation.seed"] == "too large a number"


def sweep_of(folder: Path, *points: str) -> None:
    known = [{"folder": name, "name": name, "values": {"a.b": name}} for name in points]
    record = {"format": 1, "name": "s", "paths": ["a.b"], "points": known}
    (folder / "sweep.json").write_text(json.dumps(record))


def test_of_a_sweep_only_its_points_count_and_what_else_lies_there_is_named(
    runs: Path, tmp_path: Path
) -> None:
    sweep_of(runs, "a", "c")
    told = f"{runs}: left out, as sweep.json does not name it (any longer): b"
    for board in (board_of(runs), board_of(tmp_path)):
        assert names(board) == ["a", "c"]
        assert board.remarks == (told,)
    assert names(board_of(runs, runs / "b")) == ["a", "b", "c"]
    assert list(find_runs([runs])) == ["a", "c"]
    assert left_out([runs, runs / "a", tmp_path]) == [told]


@pytest.mark.parametrize(
    ("content", "got"), [("{", "JSONDecodeError"), ("[" * 5000, "RecursionError")]
)
def test_a_sweep_whose_points_cannot_be_read_is_no_guess(
    runs: Path, tmp_path: Path, content: str, got: str
) -> None:
    other = tmp_path / "other"
    make_run(other / "d", [SetNumber("kid", 0.5)])
    (runs / "sweep.json").write_text(content)
    board = board_of(runs, other)
    assert names(board) == ["d"]
    assert f"sweep.json: expected the points of a sweep, got: {got}" in board.remarks[0]
    assert "got the folder of a sweep without any of its points" in board.faults[0]
