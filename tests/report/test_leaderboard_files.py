"""A leaderboard in the terminal and in a folder, with names and sources that others wrote."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evaluator.errors import RunDirectoryError
from evaluator.leaderboard import Board, leaderboard
from evaluator.report.leaderboard_folder import write_leaderboard
from evaluator.report.leaderboard_tables import as_csv, as_markdown, as_text
from tests.leaderboard.synthetic import SetNumber, make_run

HOSTILE = "=cmd|'/c calc'!A1 \x1b[31m\x07<script>alert(1)</script> | *x*"


@pytest.fixture
def board(tmp_path: Path) -> Board:
    for i, name in enumerate("abc"):
        make_run(
            tmp_path / "runs" / name,
            [SetNumber("fid", 10.0 + i, reach=0.1), SetNumber("kid", 1.0, reach=None)],
            name=HOSTILE if i == 0 else name,
            model={"id": "https://me:secret@example.org/model"},
            generation={"steps": 10 * (i + 1)},
        )
    cited = tmp_path / "cited.yaml"
    cited.write_text("rows: [{name: '@x', source: \"-1 \\u0007\", values: {fid: -3, other: 2}}]")
    return leaderboard([tmp_path / "runs"], cited=cited, num_resamples=50)


def test_files_of_the_folder_hold_the_same_numbers(board: Board, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    names = [path.name for path in write_leaderboard(board, folder)]
    assert names[:4] == [f"leaderboard.{end}" for end in ("json", "csv", "md", "parquet")]
    assert names[4:] == ["index.html"]
    assert {path.name for path in folder.iterdir()} == {*names, "drawings"}
    record = json.loads((folder / "leaderboard.json").read_bytes())
    assert Board.from_record(record).cells == board.cells
    rows = pq.read_table(folder / "leaderboard.parquet").to_pylist()
    assert [(r["column"], r["value"], r["rank_low"], r["rank_high"]) for r in rows] == [
        (c.column, c.value, c.rank and c.rank.low, c.rank and c.rank.high) for c in board.cells
    ]
    lines = list(csv.DictReader(io.StringIO((folder / "leaderboard.csv").read_text())))
    found = [float(line["fid"]) for line in lines]
    assert found == [10.0, 11.0, 12.0, -3.0]
    assert [line["steps"] for line in lines] == ["10", "20", "30", ""]


def test_a_value_has_the_provenance_with_which_it_was_measured(tmp_path: Path) -> None:
    prints = {"a": "1", "b": "1", "other": "2"}
    for name, print_ in prints.items():
        make_run(tmp_path / "runs" / name, [SetNumber("fid", 10.0, fingerprint=print_ * 64)])
    cited = tmp_path / "cited.yaml"
    cited.write_text("rows: [{name: paper, source: x, protocol: 50k, values: {fid: 3}}]")
    board = leaderboard([tmp_path / "runs"], cited=cited, num_resamples=50)
    folder = tmp_path / "out"
    write_leaderboard(board, folder)
    rows = {r["run"]: r for r in pq.read_table(folder / "leaderboard.parquet").to_pylist()}
    lines = csv.DictReader(io.StringIO((folder / "leaderboard.csv").read_text()))
    line = {line["run"]: line for line in lines}
    for name in ("a", "b"):
        assert rows[name]["fingerprint"] == line[name]["fid fingerprint"] == "1" * 64
        assert rows[name]["reference"] == line[name]["fid reference"] == "real"
        assert line[name]["fid direction"] == "lower is better"
        assert line[name]["fid n expected"] == "100"
    assert rows["other"]["fingerprint"] is None  # it only stands in the column of the two
    assert "22222222, not 11111111" in line["other"]["fid not ranked because"]
    assert line["other"]["fid fingerprint"] == line["paper"]["fid fingerprint"] == ""
    assert (rows["paper"]["fingerprint"], rows["paper"]["protocol"]) == (None, "50k")


def test_duckdb_reads_the_parquet_file(board: Board, tmp_path: Path) -> None:
    import duckdb

    write_leaderboard(board, tmp_path / "out")
    found = duckdb.sql(
        f"select run, value from '{tmp_path / 'out' / 'leaderboard.parquet'}' "
        "where metric = 'fid' and measured order by value desc limit 1"
    ).fetchall()
    assert found == [("c", 12.0)]


def test_no_text_cell_of_the_csv_is_a_formula(board: Board) -> None:
    for line in csv.reader(io.StringIO(as_csv(board))):
        for cell in line:
            if cell and cell[0] in "=+-@|%\t\r":
                float(cell)  # a negative number is none
    assert "'=cmd" in as_csv(board)


@pytest.mark.parametrize("form", [as_text, as_markdown, as_csv])
def test_no_control_character_and_no_login_is_shown(board: Board, form: object) -> None:
    text = form(board)  # type: ignore[operator]
    assert not {c for c in text if ord(c) < 32} - {"\n"}
    assert "secret" not in text


def test_login_is_not_in_the_json_either(board: Board, tmp_path: Path) -> None:
    write_leaderboard(board, tmp_path / "out")
    assert "secret" not in (tmp_path / "out/leaderboard.json").read_text()


def test_markdown_keeps_its_tables_whatever_names_hold(board: Board) -> None:
    text = as_markdown(board)
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3  # values, columns, rows
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1
    assert "\\<script\\>" in tables[0]


def test_terminal_shows_intervals_ranks_and_what_is_not_ranked(board: Board) -> None:
    text = as_text(board)
    assert "10.000 ± 0.100 [1]" in text
    assert "kid, not ranked: " in text
    assert "no interval: its noise is not known" in " ".join(text.split())
    assert "† @x: -1" in text
    assert "generation.steps" not in text
    assert "steps" in text


def test_narrow_terminal_goes_on_below_with_the_names_again(board: Board) -> None:
    text = as_text(board, width=90)
    assert text.count("\nb ") + text.startswith("b ") >= 3
    assert max(map(len, as_text(board, width=90).splitlines()[:8])) <= 110


def test_ties_of_an_order_are_shown_as_such(tmp_path: Path) -> None:
    values = {"a": (1.0, 1.0), "b": (2.0, 3.0), "c": (3.0, 2.0)}
    for name, (fid, kid) in values.items():
        numbers = [SetNumber("fid", fid), SetNumber("kid", kid), SetNumber("cmmd", -fid)]
        make_run(tmp_path / name, numbers)
    text = as_text(leaderboard([tmp_path], num_resamples=50))
    assert "without cmmd: a > b = c, tau " in text


def test_folder_with_something_else_is_left_alone(board: Board, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").touch()
    with pytest.raises(RunDirectoryError, match=r"got other files \(chapter\.tex\)"):
        write_leaderboard(board, tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


def test_older_leaderboard_is_replaced(board: Board, tmp_path: Path) -> None:
    write_leaderboard(board, tmp_path / "out")
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()}
    write_leaderboard(board, tmp_path / "out")
    assert first == {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file()}


def test_no_secret_that_sets_runs_apart_is_told_anywhere(tmp_path: Path) -> None:
    """Neither settings of models nor options of metrics: names and values meet only in the board."""
    for name in "abcd":
        options = {"api_key": f"sk-s3cret-{name}"} if name < "c" else {"subsets": 7, "size": 5}
        make_run(
            tmp_path / "runs" / name,
            [SetNumber("team.judge", 1.0, options=options), SetNumber("kid", 1.0, options=options)],
            model={"hub_token": f"hf_s3cret_{name}", "id": f"https://u:s3cret{name}@example.org/x"},
        )
    board = leaderboard([tmp_path / "runs"], num_resamples=20)
    paths = write_leaderboard(board, tmp_path / "out")
    shown = [path.read_text() for path in paths if path.suffix != ".parquet"]
    shown += [str(pq.read_table(path).to_pylist()) for path in paths if path.suffix == ".parquet"]
    for text in (*shown, as_text(board), repr(board.columns), repr(board.cells)):
        assert "s3cret" not in text


def test_a_leaderboard_among_files_of_others_is_refused_before_anything_is_written(
    board: Board, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    write_leaderboard(board, folder)
    (folder / "plots").mkdir()
    (folder / "leaderboard.csv").write_text("older")
    with pytest.raises(RunDirectoryError, match=r"got other files \(plots\)"):
        write_leaderboard(board, folder)
    assert (folder / "leaderboard.csv").read_text() == "older"
