"""A run's report in a browser: it works from a file, by keyboard, and runs nothing of a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from evaluator.report import write_report
from tests.browser.accessibility import faint, misshapen, nameless
from tests.browser.chromium import Scheme
from tests.browser.conftest import Open
from tests.report.conftest import HOSTILE
from tests.report.references import packed, with_nearest

SCHEMES: list[Scheme] = ["light", "dark"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_opens_without_an_error_a_violation_or_a_request(
    open_page: Open, run_page: Path, scheme: Scheme
) -> None:
    seen = open_page(run_page, scheme=scheme)
    ground = seen.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(18, 20, 25)") == (scheme == "dark")
    assert seen.missing_pictures() == []
    assert seen.trouble == []


def test_hostile_prompts_stay_text(open_page: Open, run_page: Path) -> None:
    page = open_page(run_page).page
    assert page.title() == "digits & friends"
    sly = page.locator("figcaption", has_text="a sly red three & four").first
    assert HOSTILE in sly.inner_text()
    assert "\x1b" not in page.content()
    assert "\u202e" not in page.content()


def test_gallery_searches_words_and_picks_out_failed_samples(
    open_page: Open, run_page: Path
) -> None:
    page = open_page(run_page).page
    assert page.locator(".tile").count() == 20
    page.locator("#filter").fill("sly RED")
    assert page.locator(".tile").count() == 1
    assert page.locator("#gallery-count").inner_text() == "1 of 20 samples"
    page.locator("#filter").fill("")
    page.locator("#filter-only").select_option("failed")
    assert page.locator(".tile .no-picture").all_inner_texts() == ["failed"]
    page.locator("#filter-clear").click()
    assert page.locator(".tile").count() == 20


def test_gallery_turns_pages_and_its_address_keeps_the_place(
    open_page: Open, long_page: Path
) -> None:
    page = open_page(long_page).page
    first = page.locator(".tile figcaption").first
    before = first.inner_text()
    page.locator("#page-next").click()
    page.locator("#page-next").click()
    assert page.locator(".tile").count() == 130 - 2 * 60
    assert page.locator("#page-next").is_disabled()
    assert first.inner_text() != before
    last = first.inner_text()
    page.reload()
    assert first.inner_text() == last
    assert page.locator("#page-number").input_value() == "3"


def test_a_sample_shows_its_image_maps_and_curves(open_page: Open, run_page: Path) -> None:
    seen = open_page(run_page)
    page = seen.page
    page.locator(".tile a").nth(1).click()
    panel = page.get_by_role("dialog")
    assert HOSTILE in panel.inner_text()
    assert panel.locator("#panel-maps img").count() > 4
    assert panel.locator("#panel-latents svg").count() > 0
    assert seen.missing_pictures() == []
    assert nameless(page) == []
    page.go_back()
    expect(panel).to_be_hidden()  # when the page has heard of it


def test_a_sample_shows_the_nearest_image_of_the_reference_beside_its_own(
    open_page: Open, tmp_path: Path
) -> None:
    run = with_nearest(tmp_path / "run", {"pack": str(packed(tmp_path))}, num_samples=6)
    seen = open_page(write_report(run), width=400)
    page = seen.page
    page.locator(".tile a").nth(2).click()
    beside = page.locator("#panel-nearest figure")
    assert beside.count() == 2
    assert (
        beside.nth(1).locator("img").get_attribute("alt")
        == "Nearest image of the reference: r2 · 0"
    )
    assert "features of digits bfa3bcfe, reference training (n = 20)" in beside.nth(1).inner_text()
    assert seen.missing_pictures() == []
    assert nameless(page) == []
    tops = [beside.nth(i).locator("img").bounding_box() for i in range(2)]
    assert tops[0]
    assert tops[1]
    assert tops[0]["y"] == tops[1]["y"]
    page.locator("#panel-next").click()
    assert page.locator("#panel-nearest").count() == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_everything_has_a_name_and_every_text_is_readable(
    open_page: Open, run_page: Path, scheme: Scheme
) -> None:
    page = open_page(run_page, scheme=scheme).page
    assert nameless(page) == []
    assert misshapen(page) == []
    assert faint(page) == []


def test_keyboard_alone_searches_opens_samples_and_comes_back(
    open_page: Open, run_page: Path
) -> None:
    seen = open_page(run_page)
    page = seen.page
    page.keyboard.press("Tab")
    assert seen.focused()["href"] == "#main"
    assert seen.focused()["ring"]
    page.keyboard.press("Enter")
    assert seen.tab_to("#filter")["ring"]
    page.keyboard.type("black background")
    tiles = page.locator(".tile").count()
    assert 10 < tiles < 20
    assert seen.tab_to(".tile a")["ring"]
    page.keyboard.press("Enter")
    title = page.locator("#panel-title")
    page.get_by_role("dialog").wait_for()
    assert page.evaluate("() => document.activeElement.closest('dialog') !== null")
    before = title.inner_text()
    page.keyboard.press("ArrowRight")
    assert title.inner_text() != before
    assert page.locator("#panel-place").inner_text() == f"2 of {tiles}"
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".tile a").nth(1)).to_be_focused()


def test_keyboard_alone_turns_pages(open_page: Open, long_page: Path) -> None:
    seen = open_page(long_page)
    assert seen.tab_to("#page-next", at_most=120)["ring"]
    seen.page.keyboard.press("Enter")
    assert seen.page.locator("#page-number").input_value() == "2"
    assert seen.focused()["id"] == "page-next"


def test_print_leaves_out_what_only_a_screen_can_use(open_page: Open, run_page: Path) -> None:
    page = open_page(run_page).page
    assert page.locator("#filter").is_visible()
    page.emulate_media(media="print")
    assert not page.locator("#filter").is_visible()
    assert not page.locator("nav").first.is_visible()
