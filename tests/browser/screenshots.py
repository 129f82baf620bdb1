"""Pictures of pages in light and dark: `python -m tests.browser.screenshots PAGE NAME [PLACE]`.

Writes NAME-light.png and NAME-dark.png, each the first screen of the page as a reader sees it, or
the part that the selector PLACE names. With an address such as `index.html#sample=k/0` the page
is opened at that place.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.browser.chromium import opened, started

WIDTH, HEIGHT = 1200, 900


def main(page: str, name: str, place: str = "") -> None:
    file, _, fragment = page.partition("#")
    with started() as browser:
        for scheme in ("light", "dark"):
            with opened(browser, Path(file).resolve(), scheme=scheme) as seen:
                seen.page.context.set_default_timeout(60_000)
                if fragment:
                    seen.page.goto(f"{seen.file.as_uri()}#{fragment}")
                if place:
                    seen.page.locator(place).first.scroll_into_view_if_needed()
                    seen.page.locator(place).first.evaluate("(e) => e.scrollIntoView()")
                seen.page.wait_for_load_state()
                seen.page.screenshot(path=f"{name}-{scheme}.png")
                assert seen.trouble == [], seen.trouble


if __name__ == "__main__":
    main(*sys.argv[1:])
