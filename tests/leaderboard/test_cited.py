"""Citation files: every fault at once; cited rows are shown and never ranked."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluator.errors import ConfigError
from evaluator.leaderboard import leaderboard
from evaluator.leaderboard.cited import read_citations
from tests.leaderboard.synthetic import SetNumber, make_run

GOOD = """
rows:
  - name: SD 2.1 (paper)
    source: Rombach et al. 2022, table 2
    protocol: COCO, 30,000 captions
    n: 30000
    values: {fid: 1.5, fd_dinov2: 200, geneval: 0.5}
    intervals: {fid: [1, 2]}
    level: 0.9
  - {name: a, source: "https://example.org/paper", values: {fid: 9}}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cited.yaml"
    path.write_text(text)
    return path


def test_cited_rows_stand_beside_the_measured_ones_and_are_never_ranked(tmp_path: Path) -> None:
    for i, name in enumerate("ab"):
        make_run(tmp_path / "runs" / name, [SetNumber("fid", 10.0 + i)])
    alone = leaderboard([tmp_path / "runs"], num_resamples=20)
    board = leaderboard([tmp_path / "runs"], cited=written(tmp_path, GOOD), num_resamples=20)
    assert [row.name for row in board.rows] == ["a", "b", "SD 2.1 (paper)", "a (cited)"]
    assert board.standings == alone.standings
    assert board.cells[: len(alone.cells)] == alone.cells
    best = board.cell("SD 2.1 (paper)", "fid")
    assert best is not None
    assert (best.value, best.rank, best.place) == (1.5, None, None)
    assert best.reason == "cited: not measured here, so not ranked"
    assert best.interval is not None
    assert (best.interval.low, best.interval.high, best.interval.level) == (1.0, 2.0, 0.9)
    row = board.rows[2]
    assert row.citation is not None
    assert (row.measured, row.citation.source, row.n) == (
        False, "Rombach et al. 2022, table 2", 30000,
    )  # fmt: skip


def test_a_cited_value_is_in_no_column_where_runs_measured_it_in_several_ways(
    tmp_path: Path,
) -> None:
    for i, name in enumerate("wxyz"):
        make_run(tmp_path / "runs" / name, [SetNumber("fid", 10.0 + i)], prompts="ac"[i // 2] * 64)
    board = leaderboard([tmp_path / "runs"], cited=written(tmp_path, GOOD), num_resamples=20)
    fids = [column for column in board.columns if column.metric == "fid"]
    assert [column.cited_only for column in fids] == [False, False, True]
    assert fids[2].label == "fid [cited]"
    for name, value in (("SD 2.1 (paper)", 1.5), ("a", 9.0)):
        cells = [board.cell(name, column.id) for column in fids]
        assert [cell and cell.value for cell in cells] == [None, None, value]
    assert not any("no run measured the cited 'fid'" in remark for remark in board.remarks)


def test_a_cited_metric_that_no_run_has_gets_a_column_with_its_direction(tmp_path: Path) -> None:
    make_run(tmp_path / "runs/a", [SetNumber("fid", 10.0)])
    board = leaderboard([tmp_path / "runs"], cited=written(tmp_path, GOOD), num_resamples=20)
    found = {column.id: column for column in board.columns}
    assert found["fd_dinov2"].cited_only
    assert found["fd_dinov2"].higher_is_better is False
    assert found["geneval"].higher_is_better is None
    assert not found["fid"].cited_only


def test_a_misspelt_metric_is_pointed_at(tmp_path: Path) -> None:
    make_run(tmp_path / "runs/a", [SetNumber("clip_score", 30.0)])
    text = "rows: [{name: x, source: y, values: {clipscore: 31}}]"
    board = leaderboard([tmp_path / "runs"], cited=written(tmp_path, text), num_resamples=20)
    assert board.remarks == (
        "x: no run measured the cited 'clipscore'; did you mean 'clip_score'?",
    )


def test_a_broken_file_is_a_fault_and_the_measured_rows_are_shown(tmp_path: Path) -> None:
    make_run(tmp_path / "runs/a", [SetNumber("fid", 10.0)])
    board = leaderboard(
        [tmp_path / "runs"], cited=written(tmp_path, "rows: [{name: x}]"), num_resamples=20
    )
    assert [row.name for row in board.rows] == ["a"]
    assert "the citation file has 2 faults" in board.faults[0]


def test_every_fault_is_listed_with_its_path(tmp_path: Path) -> None:
    text = """
columns: 3
rows:
  - {name: one, sorce: x, values: {fid: many, kid: 1e-4, ok: .inf}}
  - {name: one, source: [a], values: 5, n: 0, level: 95}
  - just text
  - {name: two, source: x, values: {fid: 1}, intervals: {fidd: [0, 1], fid: [2, 1]}}
  - {name: 2024-01-01, source: x, values: {}}
"""
    with pytest.raises(ConfigError) as caught:
        read_citations(written(tmp_path, text))
    assert list(caught.value.faults) == [
        "columns: unknown key; expected 'rows' alone",
        "rows.0.sorce: unknown key; did you mean 'source'?",
        "rows.0.source: expected where it was published, such as 'Podell et al. 2023, table 2',"
        " got none",
        "rows.0.values.fid: expected a number, got 'many'",
        "rows.0.values.kid: expected a number, got '1e-4'; write 1.0e-4, not 1e-4",
        "rows.0.values.ok: expected a number, got inf",
        "rows.1.source: expected text, got ['a']; put it in quotes",
        "rows.1.name: expected a name of its own, got 'one' again",
        "rows.1.n: expected a whole number of at least 1, got 0",
        "rows.1.level: expected a number between 0 and 1, such as 0.95, got 95",
        "rows.1.values: expected numbers by metric, such as {fid: 12.6}, got 5",
        "rows.2: expected name, source and values, got 'just text'",
        "rows.3.intervals.fidd: expected a metric of 'values'; did you mean 'fid'?",
        "rows.3.intervals.fid: expected the lower end first, got [2, 1]",
        "rows.4.values: expected numbers by metric, such as {fid: 12.6}, got none",
        "rows.4.name: expected text, got datetime.date(2024, 1, 1); put it in quotes",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "got an empty file"),
        ("- a", "expected 'rows:' with a list of rows"),
        ("row: []", "got the keys row"),
        ("rows: []", "expected 'rows:'"),
        ("a: [", "expected YAML, got"),
        ("!!python/object/apply:os.system ['true']", "expected YAML, got"),
    ],
)
def test_what_is_no_citation_file_is_said(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_citations(written(tmp_path, text))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a citation file \\(YAML\\), got nothing there"):
        read_citations(tmp_path / "none.yaml")


def test_half_a_surrogate_pair_and_vast_counts_are_faults(tmp_path: Path) -> None:
    path = tmp_path / "cited.yaml"
    path.write_text(
        'rows: [{name: "a\\uD800", source: s, values: {"f\\uDFFF": 1.0}, n: 99999999999999999999}]'
    )
    with pytest.raises(ConfigError) as caught:
        read_citations(path)
    said = str(caught.value)
    for place in ("rows.0.name", "rows.0.values", "rows.0.n"):
        assert place in said
    said.encode()
