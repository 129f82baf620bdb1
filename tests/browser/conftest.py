"""One browser for all tests here, and a page that fails its test when it misbehaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser

from evaluator.report import write_report
from evaluator.report.board import write_board
from evaluator.report.comparison import write_comparison
from tests.browser.chromium import Opened, opened, started, unavailable
from tests.browser.records import board, comparison, pair_scores
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

        def open_one(file: Path, **how: Any) -> Opened:
            pages.append(stack.enter_context(opened(browser, file, **how)))
            return pages[-1]

        yield open_one
        for page in pages:
            assert page.trouble == [], page.file


@pytest.fixture(scope="package")
def run_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with hostile prompts, pictures and probes."""
    run = build(tmp_path_factory.mktemp("run") / "run", Recipe(pairs=True))
    return write_report(run, tmp_path_factory.mktemp("report") / "report")


@pytest.fixture(scope="package")
def single_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of such a run in one file, carried to a folder of its own."""
    folder = tmp_path_factory.mktemp("single")
    run = build(folder / "run", Recipe(pairs=True, side=300))
    page = write_report(run, folder / "report", single_file=True)
    (folder / "elsewhere").mkdir()
    return page.rename(folder / "elsewhere" / "sent by mail.html")


@pytest.fixture(scope="package")
def long_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run whose samples fill three pages of the gallery."""
    recipe = Recipe(num_samples=130, shard_size=65, probes=False)
    run = build(tmp_path_factory.mktemp("long") / "run", recipe)
    return write_report(run, tmp_path_factory.mktemp("long-report") / "report")


@pytest.fixture(scope="package")
def comparison_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a comparison of two runs, with hostile names and prompts."""
    folder = tmp_path_factory.mktemp("compared")
    runs = [build(folder / name, Recipe(side=side)) for name, side in (("a", 32), ("b", 300))]
    found = comparison([run.path for run in runs])
    (folder / "page").mkdir()
    (folder / "page" / "comparison.json").write_text(json.dumps(found.record()))
    pq.write_table(pair_scores(), folder / "page" / "samples.parquet")
    return write_comparison(found, runs, folder / "page")


@pytest.fixture(scope="package")
def board_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a leaderboard with hostile names, of measured runs and cited rows."""
    folder = tmp_path_factory.mktemp("boards")
    return write_board(board(folder), folder / "board")
