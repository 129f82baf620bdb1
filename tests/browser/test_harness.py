"""The browser's harness sees what it is there to see."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.accessibility import faint, misshapen, nameless
from tests.browser.chromium import opened

BAD = {
    "a script that the policy forbids": "<script>document.title = 1</script>",
    "an address elsewhere": '<img src="http://192.0.2.1/x.png" alt="x">',
    "a file that is not there": '<img src="nowhere.png" alt="x">',
    "a style that the policy forbids": '<p style="color: red">red</p>',
}
POLICY = "default-src 'none'; img-src 'self' http: file:"


def page_of(folder: Path, body: str) -> Path:
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    (folder / "index.html").write_text(f"<!DOCTYPE html><title>t</title>{policy}<h1>t</h1>{body}")
    return folder / "index.html"


@pytest.mark.parametrize("why", BAD)
def test_misbehaviour_is_seen(browser: Browser, tmp_path: Path, why: str) -> None:
    with opened(browser, page_of(tmp_path, BAD[why])) as seen:
        assert seen.trouble, why
    with opened(browser, page_of(tmp_path, "<p>fine</p>")) as seen:
        assert seen.trouble == []


def test_missing_names_and_broken_references_are_seen(browser: Browser, tmp_path: Path) -> None:
    body = (
        '<button></button><img src="data:," ><svg role="img"></svg><input>'
        '<p id="a"></p><p id="a"></p><p aria-labelledby="none"></p><h4>skips</h4>'
    )
    with opened(browser, page_of(tmp_path, body)) as seen:
        assert len(nameless(seen.page)) == 4
        assert len(misshapen(seen.page)) == 3


def test_contrast_is_that_of_wcag(browser: Browser, tmp_path: Path) -> None:
    """#767676 on white is 4.54 to 1, #777777 is 4.48: the border of AA."""
    bare = "<!DOCTYPE html><title>t</title><body bgcolor=#ffffff>"
    file = tmp_path / "index.html"
    file.write_text(f"{bare}<font color=#777777>faint</font><font color=#767676>clear</font>")
    with opened(browser, file) as seen:
        assert [line.split()[-2:] for line in faint(seen.page)] == [["4.48", "faint"]]
