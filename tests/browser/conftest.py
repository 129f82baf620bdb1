"""One browser for all tests here, and a page that fails its test when it misbehaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from evaluator.report import write_report
from tests.browser.chromium import Opened, Scheme, opened, started, unavailable
from tests.report.conftest import Recipe, build

Open = Callable[..., Opened]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium. It ends with this folder: while it runs, so does an event loop."""
    if (why := unavailable()) is not None:
        pytest.skip(f"NO CHROMIUM HERE, AND SO NO TEST OF THE PAGES IN A BROWSER: {why}")
    with started() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens files; the test fails if one of them did what no page may."""
    with ExitStack() as stack:
        pages: list[Opened] = []

        def open_one(file: Path, *, scheme: Scheme = "light") -> Opened:
            pages.append(stack.enter_context(opened(browser, file, scheme=scheme)))
            return pages[-1]

        yield open_one
        for page in pages:
            assert page.trouble == [], page.file


@pytest.fixture(scope="package")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with hostile prompts, pictures and probes."""
    run = build(tmp_path_factory.mktemp("run") / "run", Recipe(pairs=True))
    return write_report(run, tmp_path_factory.mktemp("report") / "report")
