"""A run's report in a browser: it works from a file, by keyboard, and runs nothing of a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.accessibility import faint, misshapen, nameless
from tests.browser.chromium import Scheme
from tests.browser.conftest import Open
from tests.report.conftest import HOSTILE

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


def test_filter_hides_what_does_not_match(open_page: Open, run_page: Path) -> None:
    page = open_page(run_page).page
    before = page.locator(".tile:visible").count()
    page.get_by_label("Filter").first.fill("sly")
    assert page.locator(".tile:visible").count() == 1 < before
    page.get_by_label("Filter").first.fill("")
    assert page.locator(".tile:visible").count() == before


@pytest.mark.parametrize("scheme", SCHEMES)
def test_everything_has_a_name_and_every_text_is_readable(
    open_page: Open, run_page: Path, scheme: Scheme
) -> None:
    page = open_page(run_page, scheme=scheme).page
    assert nameless(page) == []
    assert misshapen(page) == []
    assert faint(page) == []


def test_keyboard_alone_reaches_filter_and_pictures(open_page: Open, run_page: Path) -> None:
    seen = open_page(run_page)
    seen.page.keyboard.press("Tab")
    assert seen.focused()["href"] == "#main"
    assert seen.focused()["ring"]
    seen.page.keyboard.press("Enter")
    assert seen.tab_to("input[type=search]")["ring"]
    seen.page.keyboard.type("sly")
    assert seen.page.locator(".tile:visible").count() == 1
    link = seen.tab_to(".tile a", at_most=3)
    assert link["ring"]


def test_print_leaves_out_what_only_a_screen_can_use(open_page: Open, run_page: Path) -> None:
    page = open_page(run_page).page
    assert page.locator("input[type=search]").first.is_visible()
    page.emulate_media(media="print")
    assert not page.locator("input[type=search]").first.is_visible()
    assert not page.locator("nav").first.is_visible()
