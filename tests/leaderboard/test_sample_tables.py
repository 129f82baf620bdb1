"""Scores of single samples as the aggregation writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evaluator.aggregate.samplewise import write_sample_rows
from evaluator.leaderboard import leaderboard
from evaluator.metrics.intervals import clustered_mean_interval
from evaluator.metrics.results import MeanOf, SampleRows
from evaluator.store.rundir import RunDirectory
from tests.leaderboard.synthetic import MeanNumber, make_run


def judged(path: Path, marks: np.ndarray) -> Path:
    """A run whose number is one minus the share of marks, twice a prompt, as `generalization`."""
    make_run(
        path,
        [MeanNumber("generalization_score", 1.0 - marks, table=False)],
        num_prompts=100,
        images=2,
    )
    means = {"generalization_score": MeanOf("memorized", factor=-1.0, offset=1.0)}
    rows = SampleRows(np.arange(200), {"memorized": marks.astype(bool)}, means=means)
    write_sample_rows(RunDirectory(path), "memorized_fraction", rows, None)
    return path


@pytest.fixture
def marks() -> tuple[np.ndarray, np.ndarray]:
    """The other run memorizes a part of what the first does."""
    generator = np.random.default_rng(0)
    one = (generator.random(200) < 0.4).astype(float)
    return one, one * (generator.random(200) < 0.75)


def test_marks_of_another_table_are_paired_with_their_factor_and_offset(
    tmp_path: Path, marks: tuple[np.ndarray, np.ndarray]
) -> None:
    for name, each in zip("ab", marks, strict=True):
        judged(tmp_path / name, each)
    board = leaderboard([tmp_path], num_resamples=20)
    assert board.columns[0].compared == "paired by prompt"
    assert {c.row: c.rank.shown for c in board.cells if c.rank} == {"a": "2", "b": "1"}


def test_pairing_decides_as_the_interval_of_the_differences(
    tmp_path: Path, marks: tuple[np.ndarray, np.ndarray]
) -> None:
    """Of two runs the critical value is Student's, so the interval of differences says the same."""
    prompts = np.repeat(np.arange(100), 2)
    for scale, apart in ((1.0, True), (0.1, False)):
        one = marks[0]
        other = one.copy()
        changed = np.flatnonzero(one != marks[1])[: int(scale * 20)]
        other[changed] = 0.0
        for name, each in {"a": one, "b": other}.items():
            judged(tmp_path / str(scale) / name, each)
        interval = clustered_mean_interval(one - other, prompts)
        assert (interval.low > 0.0) == apart
        board = leaderboard([tmp_path / str(scale)], num_resamples=20)
        assert ({c.rank.shown for c in board.cells if c.rank} == {"1", "2"}) == apart


@pytest.mark.parametrize("damage", ["cut", "newer", "no note", "gone"])
def test_damaged_tables_cost_the_pairing_and_nothing_else(
    tmp_path: Path, marks: tuple[np.ndarray, np.ndarray], damage: str
) -> None:
    import pyarrow.parquet as pq

    for name, each in zip("ab", marks, strict=True):
        judged(tmp_path / name, each)
    path = tmp_path / "b/metrics/memorized_fraction.parquet"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "gone":
        path.unlink()
    else:
        table = pq.read_table(path)
        note = json.loads(table.schema.metadata[b"evaluator.schema"])
        note = {**note, "version": 99} if damage == "newer" else {}
        kept = {"evaluator.schema": json.dumps(note)}
        pq.write_table(table.replace_schema_metadata(kept), path)
    board = leaderboard([tmp_path], num_resamples=20)
    assert board.columns[0].compared == "from the intervals"
    assert board.columns[0].n_ranked == 2
    assert "compared by the intervals" in board.remarks[0]
