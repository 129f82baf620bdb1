"""What a leaderboard's page says of rows, columns and drawings."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from evaluator.leaderboard.records import Board
from evaluator.report.board import write_board
from evaluator.report.board_charts import MAX_BARS, Bar, draw_bars
from evaluator.report.board_rows import Notes, column_heads, order_text, row_texts
from tests.browser.records import board


@pytest.fixture
def given(tmp_path: Path) -> Board:
    return board(tmp_path)


def test_notes_are_said_once_and_numbered_in_order() -> None:
    notes = Notes()
    assert [notes.number(each) for each in ("b", "a", "b\x1b[31m")] == [1, 2, 1]
    assert notes.texts == ["b", "a"]


def test_links_lead_to_reports_that_are_there_from_where_the_page_is(
    given: Board, tmp_path: Path
) -> None:
    rows = row_texts(given, Notes(), tmp_path / "a" / "board")
    assert [row.href for row in rows] == ["../../run/report/index.html", "", "", ""]


def test_only_addresses_of_the_web_become_links(given: Board, tmp_path: Path) -> None:
    rows = row_texts(given, Notes(), tmp_path)
    assert [row.source_href for row in rows] == ["", "", "https://example.org/p", ""]


def test_settings_go_by_their_last_name_and_without_secrets(given: Board, tmp_path: Path) -> None:
    settings = {"generation.steps": 20, "model.hub_token": "hf_abc", "a.kind": 1, "b.kind": 2,
                "model.task": None}  # fmt: skip
    row = replace(given.rows[0], settings=settings)
    texts = row_texts(replace(given, rows=(row,)), Notes(), tmp_path)
    said = "steps: 20, hub_token: (redacted), a.kind: 1, b.kind: 2"
    assert texts[0].settings == said


def test_columns_say_whether_their_values_are_ranked(given: Board) -> None:
    assert [head.says for head in column_heads(given)] == [
        "2 ranked, paired by prompt", "2 ranked, paired by prompt", "cited only",
        "not comparable: neither direction is better",
    ]  # fmt: skip


def test_long_orders_are_cut(given: Board) -> None:
    assert given.robustness is not None
    variant = replace(given.robustness.left_out[0], order=tuple("abcdefghij"))
    assert order_text(variant) == "a › b › c › d › e › f › g › h › 2 more"


def test_bars_are_drawn_in_proportion_and_counted() -> None:
    bars = [Bar(f"run {i}", 10.0 + i, 9.0 + i, 12.0 + i, f"rank {i}", False) for i in range(50)]
    svg = draw_bars("b", "t", "d", bars)
    dots = [float(dot.attrib["cx"]) for dot in svg.findall("circle")]
    assert len(dots) == MAX_BARS
    steps = [b - a for a, b in pairwise(dots)]
    assert steps == pytest.approx([steps[0]] * (MAX_BARS - 1), abs=0.02)
    assert 150 <= dots[0] < dots[-1] <= 390


def test_a_board_of_nothing_says_so(tmp_path: Path) -> None:
    nothing = Board((), (), (), (), None, ("expected runs, got none",))
    page = write_board(nothing, tmp_path / "board").read_text()
    assert "No run could be read." in page
    assert "expected runs, got none" in page
