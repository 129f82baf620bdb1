"""Slow samples in a browser: from the table to a sample, and to the gallery in their order."""

from __future__ import annotations

from pathlib import Path

from tests.browser.conftest import Open


def test_the_slowest_are_a_click_away_and_first_batches_say_so(
    open_page: Open, run_page: Path
) -> None:
    page = open_page(run_page).page
    page.locator("#slow-samples-table tbody tr").nth(1).get_by_role("link").first.click()
    panel = page.get_by_role("dialog")
    assert panel.locator("#panel-title").inner_text() == "k0008 · 0"
    row = panel.locator("#panel-scores tr", has_text="seconds to generate")
    assert "2 (first batch of its worker)" in row.inner_text()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="All samples in the gallery, the slowest first").click()
    said = page.locator(".tile .score").all_inner_texts()
    name = "seconds to generate (mean of its batch): "
    first = " (first batch of its worker)"
    assert said[:4] == [f"{name}3"] * 4
    assert said[4:8] == [f"{name}2{first}"] * 4
    assert said[8:16] == [f"{name}1{first}"] * 4 + [f"{name}1"] * 4
    assert said[16:] == [f"{name}0.5"] * 4
