"""The page of a sweep in a browser: clean, readable, sortable, and no text of others runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluator.report.sweep import write_sweep
from tests.browser.accessibility import faint, misshapen, nameless
from tests.browser.chromium import Scheme
from tests.browser.conftest import Open
from tests.report.conftest import HOSTILE
from tests.report.sweeps import make_sweep, traded

SCHEMES: list[Scheme] = ["light", "dark"]


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = [
        {"model.scheduler": name, "generation.guidance_scale": scale}
        for name in ("DDIM", HOSTILE)
        for scale in (3, 1, 7.5)
    ]
    return write_sweep(make_sweep(tmp_path_factory.mktemp("sweep"), values, traded, name=HOSTILE))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_opens_clean_and_readable(open_page: Open, sweep_page: Path, scheme: Scheme) -> None:
    seen = open_page(sweep_page, scheme=scheme)
    assert nameless(seen.page) == []
    assert misshapen(seen.page) == []
    assert faint(seen.page) == []
    assert seen.page.title() == HOSTILE
    assert seen.page.locator("main script").count() == 0
    assert HOSTILE in seen.page.locator("#points-table tbody").inner_text()


def test_points_sort_by_what_they_are_worth(open_page: Open, sweep_page: Path) -> None:
    page = open_page(sweep_page).page
    heading = page.locator("#points-table").get_by_role("columnheader", name="guidance_scale")
    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    cells = page.locator("#points-table tbody tr td:nth-child(2)").all_inner_texts()
    assert cells == ["1", "1", "3", "3", "7.5", "7.5"]
