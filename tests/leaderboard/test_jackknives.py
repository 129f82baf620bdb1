"""Numbers of whole sets over the same prompts: ranks and resamples by what their groups add."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluator.leaderboard import leaderboard
from evaluator.metrics.intervals import Replicates
from evaluator.statistics.paired import paired_jackknife
from tests.leaderboard.synthetic import SetNumber, make_run

GROUPS = 20
TOGETHER = "paired by groups of prompts"


def left_out_of(seed: int, value: float, *, own: float) -> list[float]:
    """Jackknives that share what prompts do to both runs, and `own` that they do not."""
    shared = np.random.default_rng(99).normal(size=GROUPS)
    noise = np.random.default_rng(seed).normal(size=GROUPS)
    return [float(x) for x in value + (shared + own * noise) / GROUPS]


@pytest.mark.parametrize("lead", [0.05, 0.1, 0.2, 0.4, 0.8])
def test_two_runs_are_told_apart_where_the_interval_of_their_difference_leaves_out_0(
    tmp_path: Path, lead: float
) -> None:
    left_out = left_out_of(1, 10.0, own=0.3), left_out_of(2, 10.0 + lead, own=0.3)
    values = 10.0, 10.0 + lead
    for name, value, jackknife in zip("ab", values, left_out, strict=True):
        make_run(tmp_path / name, [SetNumber("fid", value, left_out=jackknife)])
    board = leaderboard([tmp_path])
    assert board.columns[0].compared == TOGETHER
    seen = [Replicates(v, tuple(x), (5,) * GROUPS) for v, x in zip(values, left_out, strict=True)]
    interval = paired_jackknife(seen[0], seen[1], difference=lead).interval
    first = next(cell for cell in board.cells if cell.row == "a")
    assert first.rank is not None
    assert (first.rank.high == 1) == (interval.low > 0.0)


def test_a_set_that_is_lucky_in_one_metric_is_so_in_others(tmp_path: Path) -> None:
    """One metric eight times: resamples are as sure of the first place as with it once."""
    for jackknives in (True, False):
        found = []
        for count in (1, 8):
            folder = tmp_path / f"{jackknives}-{count}"
            for seed, (name, value) in enumerate({"a": 10.0, "b": 10.3}.items()):
                left_out = left_out_of(seed, value, own=1.0) if jackknives else None
                numbers = [
                    SetNumber(f"fd_{k}", value, left_out=left_out, extractor=f"e{k}")
                    for k in range(count)
                ]
                make_run(folder / name, numbers)
            board = leaderboard([folder])
            found.append([standing.first for standing in board.standings])
        assert found[0] == found[1]
        assert 0.5 < found[0][0] < 1.0


def test_luck_is_a_runs_own_whatever_runs_a_column_lacks(tmp_path: Path) -> None:
    """Of a and c alone, in as many columns as there are, resamples say what one column says."""
    found = []
    for count in (1, 5):
        folder = tmp_path / str(count)
        for name, value in {"a": 10.0, "b": 50.0, "c": 10.5}.items():
            both = [SetNumber(f"fd_{k}", value, 1.0, extractor=f"e{k}") for k in range(count)]
            make_run(folder / name, both if name != "b" else both[:1])
        standings = leaderboard([folder]).standings
        found.append({standing.row: standing.first for standing in standings})
    assert found[0] == found[1]
    assert 0.5 < found[0]["a"] < 1.0


def test_resamples_of_groups_spread_as_their_jackknife_says(tmp_path: Path) -> None:
    from scipy.stats import norm

    left_out = [left_out_of(seed, value, own=1.0) for seed, value in enumerate((10.0, 10.3))]
    for name, value, jackknife in zip("ab", (10.0, 10.3), left_out, strict=True):
        make_run(tmp_path / name, [SetNumber("fid", value, left_out=jackknife)])
    apart = np.array(left_out[1]) - np.array(left_out[0])
    error = np.sqrt((GROUPS - 1) / GROUPS * np.square(apart - apart.mean()).sum())
    expected = norm.cdf(0.3 / error)
    assert leaderboard([tmp_path]).standings[0].first == pytest.approx(expected, abs=0.04)


def test_the_same_images_on_two_machines_share_their_rank(tmp_path: Path) -> None:
    noise = 1e-8 * np.random.default_rng(5).normal(size=GROUPS)
    left_out = np.array(left_out_of(1, 10.0, own=1.0))
    made = {"a": (10.0, left_out), "b": (10.0 + 1e-7, left_out + noise)}
    for name, (value, jackknife) in made.items():
        number = SetNumber("fid", value, left_out=[float(x) for x in jackknife])
        make_run(tmp_path / name, [number])
    board = leaderboard([tmp_path])
    assert board.columns[0].compared == TOGETHER
    assert {cell.rank.shown for cell in board.cells if cell.rank} == {"1–2"}


def test_jackknives_of_other_groups_are_not_paired(tmp_path: Path) -> None:
    left_out = left_out_of(1, 10.0, own=0.3)
    make_run(tmp_path / "a", [SetNumber("fid", 10.0, left_out=left_out)])
    sizes = [4, 6, *[5] * (GROUPS - 2)]
    make_run(tmp_path / "b", [SetNumber("fid", 12.0, left_out=left_out, sizes=sizes)])
    assert leaderboard([tmp_path]).columns[0].compared == "from the intervals"


def test_a_number_that_no_group_moves_keeps_the_error_of_its_interval(tmp_path: Path) -> None:
    """A precision of 1 has an interval that its jackknife knows nothing of."""
    for name, value in {"a": 1.0, "b": 0.99}.items():
        number = SetNumber("precision", value, 0.2, higher_is_better=True, left_out=[value] * 20)
        make_run(tmp_path / name, [number])
    board = leaderboard([tmp_path])
    assert board.columns[0].compared == TOGETHER
    assert {cell.rank.shown for cell in board.cells if cell.rank} == {"1–2"}
