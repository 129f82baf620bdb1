"""The page of a leaderboard in a browser: it sorts, filters and folds, and trusts no text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.accessibility import faint, misshapen, nameless
from tests.browser.chromium import Scheme
from tests.browser.conftest import Open
from tests.report.conftest import HOSTILE

SCHEMES: list[Scheme] = ["light", "dark"]
BOARD = "#table-board"
ROWS = f"{BOARD} tbody tr:not(.note)"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_opens_clean_and_readable(open_page: Open, board_page: Path, scheme: Scheme) -> None:
    seen = open_page(board_page, scheme=scheme)
    seen.page.get_by_role("button", name="Provenance").click()
    assert nameless(seen.page) == []
    assert misshapen(seen.page) == []
    assert faint(seen.page) == []
    assert seen.trouble == []


def test_hostile_names_stay_text_and_links_lead_to_pages_only(
    open_page: Open, board_page: Path
) -> None:
    page = open_page(board_page).page
    assert page.title() == "Leaderboard"
    assert page.locator("main script").count() == 0
    assert HOSTILE in page.locator(ROWS).nth(1).inner_text()
    assert not {"\x1b", "\x07"} & set(page.content())
    addresses = page.evaluate("() => [...document.links].map((link) => link.protocol)")
    assert set(addresses) == {"file:", "https:"}
    assert page.locator(BOARD).get_by_role("link", name="https://example.org/p").count() == 1


def test_cited_rows_and_incomparable_columns_are_marked(open_page: Open, board_page: Path) -> None:
    page = open_page(board_page).page
    marks = page.locator(f"{ROWS} .mark").all_inner_texts()
    assert marks == ["measured", "measured", "cited", "cited"]
    heads = page.locator(f"{BOARD} thead th .unranked").all_inner_texts()
    assert heads == ["⚠ cited only", "⚠ not comparable: neither direction is better"]
    note = page.locator(ROWS).nth(2).get_by_role("link", name="Note 1").first
    assert "expected the reference" in page.locator(note.get_attribute("href") or "").inner_text()


def test_ranks_are_ranges_and_a_clear_best_is_starred(open_page: Open, board_page: Path) -> None:
    page = open_page(board_page).page
    assert page.locator(ROWS).first.locator(".rank").all_inner_texts() == [
        "place 1", "rank 1", "rank 1–2",
    ]  # fmt: skip
    assert page.locator(f"{ROWS} td.first").count() == 1


def test_columns_sort_with_their_best_value_first(open_page: Open, board_page: Path) -> None:
    page = open_page(board_page).page
    names = page.locator(f"{ROWS} th")
    for column, order, first in (
        ("fd_digits", "ascending", ["digits", "a paper"]),
        ("clip_score", "descending", [HOSTILE, "digits"]),
    ):
        heading = page.locator(BOARD).get_by_role("columnheader", name=column)
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == order
        assert [text in name for text, name in zip(first, names.all_inner_texts())] == [True, True]
        assert page.locator(f"{BOARD} th[aria-sort]").count() == 1


def test_keyboard_alone_filters_unfolds_sorts_and_opens_a_run(
    open_page: Open, board_page: Path
) -> None:
    seen = open_page(board_page)
    page = seen.page
    assert page.locator(f"{BOARD} .made:visible").count() == 0
    assert seen.tab_to("#filter-board")["ring"]
    page.keyboard.type("cited")
    assert page.locator(f"{ROWS}:visible").count() == 2
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    assert seen.tab_to("button[data-unfolds]", at_most=2)["ring"]
    page.keyboard.press("Enter")
    assert page.locator(f"{BOARD} th.made:visible").count() > 10
    seen.tab_to(f"{BOARD} th button")
    page.keyboard.press("Space")
    assert page.locator(f"{BOARD} th").first.get_attribute("aria-sort") == "ascending"
    assert seen.tab_to(f"{BOARD} tbody th a")["ring"]
    page.keyboard.press("Enter")
    page.wait_for_url("**/run/report/index.html")
    assert page.title() == "a run"


def test_print_drops_the_controls(open_page: Open, board_page: Path) -> None:
    page = open_page(board_page).page
    page.emulate_media(media="print")
    assert page.locator("input:visible, .controls button:visible").count() == 0
    assert page.locator(f"{ROWS}:visible").count() == 4
