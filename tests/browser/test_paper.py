"""Pages on paper: light, whole, nothing beyond the edge, and nothing that waits for a click."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from evaluator.report.board import write_board
from tests.browser.accessibility import faint
from tests.browser.conftest import Open
from tests.browser.records import board, cell, column

PAPER = 703
"""Pixels between the margins of A4: 210 mm less twice 12 mm, at 96 to the inch."""

PAGES = {"run_page": 12, "comparison_page": 8, "board_page": 5, "long_page": 12}
"""Pages → how many sheets they may take at most."""


@pytest.fixture(params=PAGES)
def page_file(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def wide_board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A leaderboard of far more metrics than a sheet is wide."""
    folder = tmp_path_factory.mktemp("wide")
    some = board(folder)
    names = [f"a_long_metric_{i:02d}" for i in range(24)]
    columns = tuple(column(name, True) for name in names)
    values = [(row.name, name) for row in some.rows[:2] for name in names]
    cells = tuple(cell(row, name, 1234.5, (1, 2)) for row, name in values)
    return write_board(replace(some, columns=columns, cells=cells), folder / "board")


def sheets(page: Page, **how: Any) -> tuple[int, list[str]]:
    """Number of sheets, and the headings that the printed document lists."""
    made = page.pdf(format="A4", outline=True, tagged=True, **how)
    titles = [
        _decoded(found) for found in re.findall(rb"/Title\s*(\(.*?(?<!\\)\)|<[0-9A-Fa-f]+>)", made)
    ]
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", made)), titles


def _decoded(written: bytes) -> str:
    if written.startswith(b"<"):
        return bytes.fromhex(written[1:-1].decode()).decode("utf-16")
    return re.sub(r"\\(.)", r"\1", written[1:-1].decode("latin-1"))


def on_paper(page: Page, width: int = PAPER) -> None:
    """The page as it is printed, for as long as it is asked about."""
    page.set_viewport_size({"width": width, "height": 1000})
    page.evaluate("() => void dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")


def beyond(page: Page) -> list[str]:
    """Elements that end beyond the right edge."""
    found: list[str] = page.evaluate(
        """() => Array.from(document.querySelectorAll("body *")).filter((e) =>
          !e.closest(".skip") && e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1,
        ).map((e) => `${e.tagName}.${e.className} ${e.textContent.slice(0, 40)}`)"""
    )
    return found


def test_a_page_takes_few_sheets_and_has_all_its_sections(
    open_page: Open, request: pytest.FixtureRequest, page_file: Path
) -> None:
    page = open_page(page_file).page
    headings = page.locator("h2:visible").all_inner_texts()
    number, titles = sheets(page)
    most = PAGES[request.node.callspec.params["page_file"]]
    assert 1 < number <= most
    assert len(headings) > 3
    assert [each for each in headings if each not in titles] == []


def test_nothing_ends_beyond_the_edge(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file).page
    on_paper(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= PAPER
    assert beyond(page) == []


def test_a_dark_screen_prints_dark_ink_on_white(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file, scheme="dark").page
    on_paper(page)
    ink = "() => getComputedStyle(document.body).color"
    assert page.evaluate(ink) == "rgb(22, 25, 31)"
    grounds = page.evaluate(
        """() => [...new Set(Array.from(document.querySelectorAll("body, body *"),
          (e) => getComputedStyle(e).backgroundColor))]"""
    )
    bright = [
        min(map(int, re.findall(r"\d+", each)[:3])) for each in grounds if "0, 0, 0, 0" not in each
    ]
    assert all(each > 200 for each in bright), grounds
    assert faint(page) == []
    page.emulate_media(media="screen")
    assert page.evaluate(ink) == "rgb(236, 238, 242)"


def test_a_wide_table_is_printed_in_pieces_with_every_column_once(
    open_page: Open, wide_board: Path
) -> None:
    page = open_page(wide_board).page
    table = page.locator("#table-board")
    screen = [text.split("\n")[0] for text in table.locator("thead th:visible").all_inner_texts()]
    on_paper(page)
    assert beyond(page) == []
    assert not table.is_visible()
    pieces = page.locator("#board .pieces table")
    assert pieces.count() > 3
    heads = [
        [text.split("\n")[0] for text in pieces.nth(i).locator("thead th").all_inner_texts()]
        for i in range(pieces.count())
    ]
    assert {head[0] for head in heads} == {"Run"}
    assert [name for head in heads for name in head[1:]] == screen[1:]
    named = [pieces.nth(i).locator("tbody tr:not(.note) th").count() for i in range(len(heads))]
    assert named == [4] * len(heads)
    warnings = [pieces.nth(i).locator("tr.note").count() for i in range(len(heads))]
    assert warnings == [1] + [0] * (len(heads) - 1)
    page.emulate_media(media="screen")
    page.evaluate("() => void dispatchEvent(new Event('afterprint'))")
    assert page.locator(".pieces").count() == 0
    assert table.is_visible()


def test_a_table_that_fits_is_printed_in_one_piece(open_page: Open, run_page: Path) -> None:
    page = open_page(run_page).page
    on_paper(page)
    assert page.locator("#results .pieces").count() == 0
    assert page.locator("#results-table").is_visible()


def test_what_is_filtered_and_folded_on_the_screen_is_so_on_paper(
    open_page: Open, wide_board: Path
) -> None:
    page = open_page(wide_board).page
    page.locator("#filter-board").fill("a paper")
    on_paper(page)
    assert page.locator("#board .pieces").first.locator("tbody th").count() > 3
    assert set(page.locator("#board .pieces tbody th").all_inner_texts()) == {"a paper"}
    assert page.locator("#board .pieces th.made:visible").count() == 0


def test_numbers_of_closed_details_are_printed(open_page: Open, run_page: Path) -> None:
    page = open_page(run_page).page
    height = """() => Array.from(document.querySelectorAll("#results tr.note details div"),
      (e) => e.checkVisibility() ? e.getBoundingClientRect().height : 0)"""
    closed = page.evaluate(height)
    assert closed
    assert max(closed) == 0
    on_paper(page)
    assert min(page.evaluate(height)) > 0


def test_an_open_sample_is_printed_alone(open_page: Open, run_page: Path) -> None:
    page = open_page(run_page, scheme="dark").page
    whole, _ = sheets(page)
    page.locator(".tile a").nth(1).click()
    title = page.locator("#panel-title").inner_text()
    number, titles = sheets(page)
    assert number <= 3 < whole
    assert title in titles
    assert "Results" not in titles
    on_paper(page)
    assert page.locator("h1:visible, #results-table:visible, dialog button:visible").count() == 0
    assert page.locator("#panel-image img, #panel-scores, #panel-facts").count() == 3
    assert page.locator("dialog .on-paper").inner_text().startswith("digits & friends")
    assert beyond(page) == []


def test_headings_of_tables_can_stand_on_every_sheet(open_page: Open, run_page: Path) -> None:
    """A button would be left out of a repeated heading; its text alone is not."""
    page = open_page(run_page).page
    on_paper(page)
    head = page.locator("#results-table thead")
    assert head.evaluate("(e) => getComputedStyle(e).display") == "table-header-group"
    assert head.locator("button").first.evaluate("(e) => getComputedStyle(e).display") == "contents"
