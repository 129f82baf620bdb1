"""What holds for every page: narrow screens, no scripts, paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.conftest import Open

PAGES = ("run_page", "comparison_page", "board_page", "single_page")


@pytest.fixture(params=PAGES)
def page_file(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_a_narrow_screen_scrolls_tables_not_the_page(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file, width=400).page
    width = page.evaluate("() => document.documentElement.scrollWidth")
    assert width <= 400
    assert page.locator("h1").is_visible()


def test_on_a_narrow_screen_captions_and_notes_are_read_without_scrolling(
    open_page: Open, page_file: Path
) -> None:
    page = open_page(page_file, width=400).page
    said = page.locator("caption:visible, tr.note td > :visible")
    boxes = [said.nth(i).bounding_box() for i in range(said.count())]
    assert len(boxes) > 1
    assert [box for box in boxes if box and box["x"] + box["width"] > 400] == []


def test_a_row_keeps_its_name_in_sight_when_its_table_scrolls(
    open_page: Open, page_file: Path
) -> None:
    page = open_page(page_file, width=400).page
    moved = page.evaluate(
        """() => Array.from(document.querySelectorAll(".scroll:has(tbody th:first-child)"), (box) => {
          const [edge, most] = [box.getBoundingClientRect().left, box.scrollWidth - box.clientWidth];
          box.scrollLeft = Math.min(80, most);
          const name = box.querySelector("tbody th:first-child").getBoundingClientRect().left;
          return most > 80 && box.checkVisibility() ? [Math.abs(name - edge) < 2, box.scrollLeft] : null;
        }).filter(Boolean)"""
    )
    assert moved
    assert all(stays and by == 80 for stays, by in moved)


def test_without_scripts_the_numbers_are_there_and_no_dead_control(
    open_page: Open, page_file: Path
) -> None:
    page = open_page(page_file, scripts=False).page
    assert page.locator("main table tbody tr:visible").count() > 1
    assert page.locator("main img:visible, main svg:visible").count() > 1
    assert page.locator("input:visible, select:visible, button:visible").count() == 0


def test_paper_has_no_controls_and_dark_ink(open_page: Open, page_file: Path) -> None:
    page = open_page(page_file, scheme="light").page
    page.emulate_media(media="print")
    assert page.locator("input:visible, select:visible, nav:visible").count() == 0
    assert page.locator("main table:visible").count() > 0


def test_one_file_holds_its_pictures_and_opens_samples(open_page: Open, single_page: Path) -> None:
    assert [path.name for path in single_page.parent.iterdir()] == [single_page.name]
    seen = open_page(single_page)
    assert seen.missing_pictures() == []
    seen.page.locator(".tile a").first.click()
    panel = seen.page.get_by_role("dialog")
    panel.locator("img").nth(1).wait_for(state="attached")
    assert seen.missing_pictures() == []
    assert seen.page.evaluate("() => [...document.images].every((i) => i.src.startsWith('data:'))")
