"""How far the order holds: over metrics, groups and resamples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evaluator.leaderboard import Board, leaderboard, sorted_board
from tests.leaderboard.synthetic import MeanNumber, SetNumber, make_run

ORDERS = {
    "fid": {"a": 1.0, "b": 2.0, "c": 3.0},
    "kid": {"a": 1.0, "b": 2.0, "c": 3.0},
    "cmmd": {"a": 3.0, "b": 2.0, "c": 1.0},
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in "abc":
        numbers = [SetNumber(metric, v[name], reach=0.01) for metric, v in ORDERS.items()]
        groups = [
            SetNumber("fid", value, group={"region": region}, reach=0.01)
            for region, value in {
                "north": ORDERS["fid"][name],
                "south": ORDERS["cmmd"][name],
            }.items()
        ]
        make_run(tmp_path / "runs" / name, [*numbers, *groups])
    return tmp_path / "runs"


def test_win_rates_and_places_are_those_by_hand(runs: Path) -> None:
    board = leaderboard([runs])
    assert [(s.row, s.place, s.num_metrics) for s in board.standings] == [
        ("a", 1, 3), ("b", 2, 3), ("c", 3, 3),
    ]  # fmt: skip
    np.testing.assert_allclose([s.win_rate for s in board.standings], [2 / 3, 1 / 2, 1 / 3])
    assert board.standings[0].by_metric == {"fid": 1.0, "kid": 1.0, "cmmd": 0.0}


def test_columns_of_one_quantity_count_once_in_win_rates(tmp_path: Path) -> None:
    """`b` is ahead in one quantity that has two columns, `a` in two that have one each."""
    better = {"kid": "b", "kid_full": "b", "fid": "a", "cmmd": "a"}
    for name in "ab":
        numbers = [SetNumber(m, 1.0 if name == first else 2.0) for m, first in better.items()]
        make_run(tmp_path / name, numbers)
    board = leaderboard([tmp_path])
    first, second = board.standings
    assert (first.row, first.num_metrics) == ("a", 3)
    assert (first.win_rate, second.win_rate) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert first.by_metric == {"kid_full": 0.0, "fid": 1.0, "cmmd": 1.0}
    assert all((cell := board.cell("a", m)) is not None and cell.rank for m in better)
    said = "kid counts in no win rate: kid_full is of the same quantity and counts once for both"
    assert said in board.remarks
    assert board.robustness is not None
    assert "without kid" not in [each.name for each in board.robustness.left_out]
    assert {("kid", "kid_full")} <= {(a.first, a.second) for a in board.robustness.between_metrics}


def test_a_quantity_counts_for_runs_that_have_but_one_of_its_columns(tmp_path: Path) -> None:
    both = [SetNumber(metric, 1.0) for metric in ("kid", "kid_full")]
    for name in "ab":
        make_run(tmp_path / name, both)
    for name in "cd":
        make_run(tmp_path / name, [SetNumber("kid", 2.0)])
    board = leaderboard([tmp_path])
    assert {s.row: s.by_metric for s in board.standings}["c"] == {"kid": pytest.approx(1 / 6)}
    assert not any(remark.startswith("kid counts in no") for remark in board.remarks)
    assert any(r.startswith("kid_full counts in no win rate: kid is") for r in board.remarks)


def test_what_is_measured_on_other_features_or_otherwise_counts_by_itself(tmp_path: Path) -> None:
    for name in "ab":
        numbers = [SetNumber(m, 1.0, extractor=e) for m, e in
                   (("kid_full", "inception"), ("kd_x", "x"), ("fid_infinity", "inception"))]  # fmt: skip
        make_run(tmp_path / name, numbers)
    board = leaderboard([tmp_path])
    assert {s.num_metrics for s in board.standings} == {3}
    assert not any("counts in no win rate" in remark for remark in board.remarks)


def test_an_order_beyond_all_noise_holds_in_every_resample(runs: Path) -> None:
    board = leaderboard([runs])
    assert [(s.first, s.keeps) for s in board.standings] == [(1.0, 1.0), (0.0, 1.0), (0.0, 1.0)]
    assert [(s.low, s.high) for s in board.standings] == [
        (s.win_rate,) * 2 for s in board.standings
    ]
    assert board.robustness is not None
    assert (board.robustness.tau, board.robustness.num_resamples) == (1.0, 1000)


def test_runs_that_are_alike_share_the_first_place_about_evenly(tmp_path: Path) -> None:
    for name in "ab":
        make_run(tmp_path / name, [SetNumber("fid", 10.0, reach=1.0)])
    board = leaderboard([tmp_path])
    assert [s.place for s in board.standings] == [1, 1]
    assert sum(s.first for s in board.standings) == pytest.approx(1.0)
    assert 0.44 < board.standings[0].first < 0.56


def test_share_of_first_places_is_that_of_two_normal_values(tmp_path: Path) -> None:
    from scipy.stats import norm, t

    for name, value in {"a": 10.0, "b": 10.5}.items():
        make_run(tmp_path / name, [SetNumber("fid", value, reach=1.0)])
    error = 1.0 / t.ppf(0.975, 19)
    expected = norm.cdf(0.5 / (error * np.sqrt(2)))
    assert leaderboard([tmp_path]).standings[0].first == pytest.approx(expected, abs=0.04)


def test_metrics_over_the_same_prompts_resample_the_same_prompts(tmp_path: Path) -> None:
    """One metric twice under two names: the resampled orders agree, so it decides alone."""
    generator = np.random.default_rng(0)
    for name in "ab":
        scores = generator.normal(size=60)
        make_run(tmp_path / name, [MeanNumber("clip_score", scores)], num_prompts=60)
        record = json.loads((tmp_path / name / "metrics.json").read_bytes())
        assert len(record["metrics"]) == 1
    one = leaderboard([tmp_path])
    for name in "ab":
        path = tmp_path / name
        record = json.loads((path / "metrics.json").read_bytes())
        record["metrics"].append({**record["metrics"][0], "name": "twin"})
        (path / "metrics.json").write_text(json.dumps(record))
        _copy_table(path, "clip_score", "twin")
    both = leaderboard([tmp_path])
    assert [c.compared for c in both.columns] == ["paired by prompt"] * 2
    assert [s.first for s in both.standings] == [s.first for s in one.standings]


def _copy_table(run: Path, name: str, copy: str) -> None:
    import pyarrow.parquet as pq

    from evaluator.store.rundir import RunDirectory

    table = pq.read_table(run / "metrics" / f"{name}.parquet")
    note = {"means": {copy: {"column": "score"}}}
    RunDirectory(run).write_metric_table(copy, table.replace_schema_metadata(None), note)


def test_leaving_out_a_metric_shows_which_one_decides(runs: Path) -> None:
    found = leaderboard([runs], metrics=["fid", "cmmd"]).robustness
    assert found is not None
    assert {v.name: v.order for v in found.left_out} == {
        "without fid": ("c", "b", "a"),
        "without cmmd": ("a", "b", "c"),
    }
    board = leaderboard([runs])
    assert [(s.place_low, s.place_high) for s in board.standings] == [(1, 1), (1, 2), (1, 3)]


def test_agreement_between_metrics_is_kendalls(runs: Path) -> None:
    found = leaderboard([runs]).robustness
    assert found is not None
    assert {(a.first, a.second): (a.tau, a.n) for a in found.between_metrics} == {
        ("fid", "kid"): (1.0, 3), ("fid", "cmmd"): (-1.0, 3), ("kid", "cmmd"): (-1.0, 3),
    }  # fmt: skip


def test_order_in_each_group_is_compared_with_the_whole(runs: Path) -> None:
    found = leaderboard([runs], by="region").robustness
    assert found is not None
    assert [(v.name, v.order, v.tau) for v in found.groups] == [
        ("region=north", ("a", "b", "c"), pytest.approx(1.0)),
        ("region=south", ("c", "b", "a"), pytest.approx(-1.0)),
    ]


def test_rows_are_sorted_by_a_metric_in_its_direction(runs: Path) -> None:
    board = leaderboard([runs], sort="cmmd")
    assert [row.name for row in board.rows] == ["c", "b", "a"]
    assert board.sort == "cmmd"
    assert [row.name for row in sorted_board(board, None).rows] == ["a", "b", "c"]


def test_settings_that_differ_are_told_and_no_others(tmp_path: Path) -> None:
    for steps in (10, 20):
        make_run(tmp_path / f"s{steps}", [SetNumber("fid", 1.0)], generation={"steps": steps})
    board = leaderboard([tmp_path], num_resamples=20)
    assert [row.settings for row in board.rows] == [
        {"generation.steps": 10}, {"generation.steps": 20},
    ]  # fmt: skip


def test_a_board_is_read_back_as_it_was(runs: Path, tmp_path: Path) -> None:
    cited = tmp_path / "cited.yaml"
    cited.write_text("rows: [{name: x, source: y, values: {fid: 1}, intervals: {fid: [0, 2]}}]")
    board = leaderboard([runs], cited=cited, num_resamples=20)
    assert Board.from_record(json.loads(json.dumps(board.record()))) == board


def test_settings_that_are_off_or_not_used_set_no_run_apart(tmp_path: Path) -> None:
    make_run(tmp_path / "a", [SetNumber("fid", 1.0)], model={"compile": False, "loras": []})
    make_run(tmp_path / "b", [SetNumber("fid", 1.0)])
    images = {"kind": "images", "id": None}
    make_run(tmp_path / "c", [SetNumber("fid", 1.0)], model=images, generation={"steps": 7})
    settings = {r.name: r.settings for r in leaderboard([tmp_path], num_resamples=20).rows}
    assert settings["a"] == settings["b"]
    assert set(settings["a"]).isdisjoint({"model.compile", "model.loras"})
    assert settings["c"]["generation.steps"] is None
