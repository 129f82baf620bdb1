"""A study's form in a browser: answered by keyboard alone, saved, and read back as it was chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Page, expect

from evaluator.study import MadeStudy, StudyRequest, make_study, read_back
from tests.browser.accessibility import faint, misshapen, nameless
from tests.browser.chromium import Opened, Scheme
from tests.browser.conftest import Open
from tests.study.runs import COLOURS, make_run

SCHEMES: list[Scheme] = ["light", "dark"]

CORNER = """(image) => {
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  return Array.from(pen.getImageData(0, canvas.height - 1, 1, 1).data.slice(0, 3));
}"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: make_run(folder / name) for name in ("alpha", "beta", "real")}


@pytest.fixture
def pairs(runs: dict[str, Path], tmp_path: Path) -> tuple[MadeStudy, Path]:
    request = StudyRequest(runs=[runs["alpha"], runs["beta"]], items=9, repeats=2, raters=2)
    return make_study(request, tmp_path / "study"), tmp_path / "study"


def begun(seen: Opened) -> Page:
    """The page with its first question open, reached by Tab and Enter."""
    assert seen.tab_to("#begin")["ring"]
    seen.page.keyboard.press("Enter")
    return seen.page


def shown(page: Page, side: str) -> str:
    """Which run made the image on a side, told from its pixels on the screen."""
    pixel = page.locator(f"#image-{side}").evaluate(CORNER)
    return next(name for name, colour in COLOURS.items() if list(colour) == pixel)


def at_question(page: Page, number: int, of: int) -> None:
    """Wait for a question, and for its images."""
    expect(page.locator("#ask-title")).to_have_text(f"Question {number} of {of}")
    expect(page.locator(".choices")).to_have_attribute("aria-busy", "false")


def saved(page: Page, folder: Path) -> Path:
    """Save by keyboard, into the study's folder."""
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    path = folder / "answers" / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_answered_by_keyboard_alone_and_read_back_as_chosen(
    open_page: Open, pairs: tuple[MadeStudy, Path]
) -> None:
    made, folder = pairs
    seen = open_page(made.forms[1])
    page = begun(seen)
    chosen = []
    for number in range(1, 12):
        at_question(page, number, 11)
        sides = {side: shown(page, side) for side in ("left", "right")}
        assert set(sides.values()) == {"alpha", "beta"}
        # every third is a tie; else the red one, by arrows and by numbers in turn
        where = "tie" if number % 3 == 0 else "left" if sides["left"] == "alpha" else "right"
        keys = {"left": ("ArrowLeft", "1"), "tie": ("ArrowDown", "2"), "right": ("ArrowRight", "3")}
        page.keyboard.press(keys[where][number % 2])
        chosen.append((number, sides["left"], sides["right"], where))
    expect(page.locator("#end-title")).to_have_text("Thank you: that was the last question")
    assert seen.tab_to("#save", at_most=3)["ring"]
    path = saved(page, folder)
    assert path.name == f"answers-{made.study.id[:8]}-rater-02.json"
    found = read_back(folder).results
    rows = pq.read_table(folder / "answers.parquet").to_pylist()
    assert [(r["trial"], r["left"], r["right"], r["answer"]) for r in rows] == chosen
    assert {row["preferred"] for row in rows} == {"alpha", None}
    assert {row["rater"] for row in rows} == {"rater-02"}
    assert all(0 <= row["seconds"] < 60 for row in rows)
    assert found.runs[0].score is not None
    assert found.runs[0].score > 0.5
    assert seen.trouble == []


def test_a_reload_and_a_closed_page_lose_nothing(
    open_page: Open, pairs: tuple[MadeStudy, Path]
) -> None:
    made, _ = pairs
    seen = open_page(made.forms[0])
    page = begun(seen)
    for number in (1, 2, 3):
        at_question(page, number, 11)
        page.keyboard.press("1")
    at_question(page, 4, 11)
    page.reload()
    expect(page.locator("#begin")).to_have_text("Go on: 3 of 11 are answered")
    begun(seen)
    at_question(page, 4, 11)
    page.goto(made.forms[1].as_uri())
    expect(page.locator("#begin")).to_have_text("Begin")  # another rater


def test_a_question_can_be_answered_again(open_page: Open, pairs: tuple[MadeStudy, Path]) -> None:
    made, folder = pairs
    seen = open_page(made.forms[0])
    page = begun(seen)
    at_question(page, 1, 11)
    page.keyboard.press("1")
    at_question(page, 2, 11)
    page.keyboard.press("Backspace")
    at_question(page, 1, 11)
    left = page.get_by_role("button", name="Left")
    expect(left).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("3")
    at_question(page, 2, 11)
    seen.tab_to("#stop")
    page.keyboard.press("Enter")
    expect(page.locator("#end-title")).to_have_text("Not all questions are answered yet")
    seen.tab_to("#save", at_most=3)
    record = json.loads(saved(page, folder).read_text())
    assert [(one["trial"], one["answer"]) for one in record["answers"]] == [(1, "right")]
    assert json.loads(page.locator("#text").input_value()) == record
    seen.tab_to("#resume")
    page.keyboard.press("Enter")
    at_question(page, 2, 11)


def test_a_browser_that_keeps_nothing_says_so_and_still_works(
    open_page: Open, pairs: tuple[MadeStudy, Path]
) -> None:
    made, _ = pairs
    seen = open_page(made.forms[0])
    page = seen.page
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('denied'); }});"
    )
    page.reload()
    expect(page.locator("#kept")).to_contain_text("do not close this page before you have saved")
    begun(seen)
    for number in (1, 2):
        at_question(page, number, 11)
        page.keyboard.press("2")
    at_question(page, 3, 11)


def test_what_lies_on_the_device_is_not_trusted(
    open_page: Open, pairs: tuple[MadeStudy, Path]
) -> None:
    made, _ = pairs
    page = open_page(made.forms[0]).page
    kept = [{"trial": 2, "answer": "left", "seconds": "x"}, {"trial": 99, "answer": "left"},
            {"trial": 1, "answer": "<b>up</b>"}, None, 7]  # fmt: skip
    put = "([name, text]) => localStorage.setItem(name, text)"
    name = f"evaluator-study/{made.study.id}/rater-01"
    for text, button in ((json.dumps(kept), "Go on: 1 of 11 are answered"), ("{[", "Begin")):
        page.evaluate(put, [name, text])
        page.reload()
        expect(page.locator("#begin")).to_have_text(button)


def test_hostile_prompts_stay_text(open_page: Open, pairs: tuple[MadeStudy, Path]) -> None:
    made, _ = pairs
    seen = open_page(made.forms[0])
    page = begun(seen)
    prompts = []
    for number in range(1, 12):
        at_question(page, number, 11)
        prompts.append(page.locator("#prompt").inner_text())
        page.keyboard.press("2")
    told = [prompt for prompt in prompts if "script" in prompt]
    assert set(told) == {'“<script>document.title="owned"</script> a sly red one & "two"”'}
    assert page.title() == "Which image is better?"


def test_real_or_generated_by_keys(open_page: Open, runs: dict[str, Path], tmp_path: Path) -> None:
    request = StudyRequest(
        runs=[runs["alpha"]], kind="real-or-generated", reference=str(runs["real"]),
        items=8, repeats=1, raters=1,
    )  # fmt: skip
    made = make_study(request, tmp_path / "study")
    seen = open_page(made.forms[0])
    page = begun(seen)
    for number in range(1, 10):
        at_question(page, number, 9)
        page.keyboard.press("ArrowLeft" if shown(page, "image") == "real" else "2")
    expect(page.locator("#end-title")).to_contain_text("Thank you")
    seen.tab_to("#save", at_most=3)
    saved(page, tmp_path / "study")
    found = read_back(tmp_path / "study").results
    assert found.accuracy is not None
    assert found.accuracy.value == 1.0
    assert found.accuracy.n == 8


@pytest.mark.parametrize("scheme", SCHEMES)
def test_everything_has_a_name_and_every_text_is_readable(
    open_page: Open, pairs: tuple[MadeStudy, Path], scheme: Scheme
) -> None:
    made, _ = pairs
    seen = open_page(made.forms[0], scheme=scheme)
    page = seen.page

    def sound() -> None:
        assert nameless(page) == []
        assert misshapen(page) == []
        assert faint(page) == []

    sound()
    begun(seen)
    at_question(page, 1, 11)
    assert page.evaluate("() => document.activeElement.id") == "ask-title"
    sound()
    for answer in ("Left", "No difference", "Right"):
        assert seen.tab_to("[data-answer]")["ring"]
        assert page.get_by_role("button", name=answer).evaluate(
            "(b) => b === document.activeElement"
        )
    page.locator("#stop").click()
    sound()
