"""The page of a comparison in a browser: it sorts, filters, opens pictures, and trusts no text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.accessibility import faint, misshapen, nameless
from tests.browser.chromium import Scheme
from tests.browser.conftest import Open
from tests.report.conftest import HOSTILE

SCHEMES: list[Scheme] = ["light", "dark"]
METRICS = "#table-metrics-b"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_opens_clean_readable_and_with_every_picture(
    open_page: Open, comparison_page: Path, scheme: Scheme
) -> None:
    seen = open_page(comparison_page, scheme=scheme)
    assert seen.page.locator("img").count() > 20
    assert seen.missing_pictures() == []
    seen.page.evaluate("() => document.querySelectorAll('details').forEach((d) => d.open = true)")
    assert nameless(seen.page) == []
    assert misshapen(seen.page) == []
    assert faint(seen.page) == []
    assert seen.trouble == []


def test_hostile_names_and_prompts_stay_text(open_page: Open, comparison_page: Path) -> None:
    page = open_page(comparison_page).page
    assert page.title() == f"digits {HOSTILE}evil against digits"
    assert HOSTILE in page.locator(METRICS).inner_text()
    assert HOSTILE in page.locator("#limits").inner_text()
    assert page.locator(".card", has_text="a sly red three & four").count() == 1
    assert page.locator("#limits script, .card script, td script").count() == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(page.content())


def test_what_could_not_be_compared_stands_before_any_number(
    open_page: Open, comparison_page: Path
) -> None:
    page = open_page(comparison_page).page
    first = page.locator("main section").first
    assert first.get_attribute("id") == "limits"
    assert "expected one fingerprint" in first.inner_text()


def test_headings_sort_by_number_and_say_so(open_page: Open, comparison_page: Path) -> None:
    page = open_page(comparison_page).page
    heading = page.locator(METRICS).get_by_role("columnheader", name="Difference")
    names = page.locator(f"{METRICS} tbody tr:not(.note) th")
    assert names.first.inner_text().startswith("clip_score")
    heading.get_by_role("button").click()
    order = heading.get_attribute("aria-sort")
    assert order in ("ascending", "descending")
    rising = [text.split()[0] for text in names.all_inner_texts()][:3]
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") != order
    falling = [text.split()[0] for text in names.all_inner_texts()][:3]
    expected = ["correct", "clip_score", "fd_digits"]
    assert (rising, falling) == (
        (expected, expected[::-1]) if order == "ascending" else (expected[::-1], expected)
    )
    assert HOSTILE in names.last.inner_text()  # without a number it is last either way


def test_filters_find_a_group_and_a_prompt(open_page: Open, comparison_page: Path) -> None:
    page = open_page(comparison_page).page
    page.locator("#filter-groups-b").fill("red")
    assert page.locator("#table-groups-b tbody tr:not(.note):visible").count() == 1
    page.locator("#cards-b").fill("sly")
    assert page.locator("#changed-b .card:visible").count() == 1
    assert page.locator("output[for=cards-b]").inner_text() == "1 of 4"
    page.locator("#cards-b").fill("")
    assert page.locator("#changed-b .card:visible").count() == 4


def test_histogram_tells_how_all_pairs_moved(open_page: Open, comparison_page: Path) -> None:
    page = open_page(comparison_page).page
    drawing = page.get_by_role("img", name="clip_score: differences of single pairs")
    counts = drawing.locator("rect title").all_text_contents()
    assert sum(int(says.split(": ")[1].split()[0]) for says in counts) == 20
    assert "60 % of the pairs are better, 0 % the same, 40 % worse" in (
        drawing.locator("xpath=..").inner_text()
    )


def test_heat_maps_of_both_runs_stand_side_by_side(open_page: Open, comparison_page: Path) -> None:
    page = open_page(comparison_page).page
    rows = page.locator("#attention-b .watched")
    words = [row.locator("figcaption").all_inner_texts() for row in rows.all()[:2]]
    assert words[0][0] == "A: digits"
    assert words[1][0].startswith("B: digits")
    assert words[0][1:] == words[1][1:]
    assert len(words[0]) > 4


def test_keyboard_alone_sorts_filters_and_opens_a_picture(
    open_page: Open, comparison_page: Path
) -> None:
    seen = open_page(comparison_page)
    seen.page.keyboard.press("Tab")
    assert seen.focused()["href"] == "#main"
    assert seen.tab_to("#filter-metrics-b")["ring"]
    seen.page.keyboard.type("fd_digits")
    assert seen.page.locator(f"{METRICS} tbody tr:not(.note):visible").count() == 1
    assert seen.tab_to(f"{METRICS} th button")["ring"]
    seen.page.keyboard.press("Enter")
    assert seen.page.locator(f"{METRICS} th[aria-sort]").count() == 1
    assert seen.tab_to("#cards-b", at_most=80)["ring"]
    seen.page.keyboard.type("sly")
    assert seen.tab_to(".card a", at_most=3)["ring"]
    seen.tab_to(".card summary", at_most=3)
    seen.page.keyboard.press("Space")
    seen.page.locator(".card details[open] .maps img").last.wait_for()
    seen.page.keyboard.press("Shift+Tab")
    seen.page.keyboard.press("Enter")
    seen.page.wait_for_url("**/pictures/b-*.webp")
    seen.page.go_back()
    assert seen.page.locator("#changed-b").is_visible()


def test_print_keeps_the_numbers_and_drops_the_controls(
    open_page: Open, comparison_page: Path
) -> None:
    page = open_page(comparison_page).page
    page.emulate_media(media="print")
    assert page.locator("input:visible").count() == 0
    assert page.locator(f"{METRICS} tbody tr:visible").count() == 8
