"""The distribution's Chromium, driven without a network, and what went wrong while it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.cluster.packages import install

Scheme = Literal["light", "dark"]

PATIENCE_MILLISECONDS = 60_000
"""A page does everything in a tenth of a second; a busy machine may not."""

HARMLESS = ("file:", "data:", "blob:", "about:")
"""What a page may ask for: files beside it, and what it carries inside."""

_VIOLATIONS = """
window.__violations = [];
addEventListener("securitypolicyviolation", (event) => {
  window.__violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
"""


def unavailable() -> str | None:
    """Why there is no browser here, after an attempt to install one; None where there is."""
    if shutil.which("chromium") is not None:
        return None
    return install("chromium")


@contextmanager
def started() -> Iterator[Browser]:
    """A headless browser for as long as the block lasts."""
    arguments = ["--disable-quic", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium refuses to sandbox for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        expect.set_options(timeout=PATIENCE_MILLISECONDS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """A page, and all that it did wrong since it was opened."""

    page: Page
    file: Path
    errors: list[str] = field(default_factory=list)
    """What it wrote to the console as a warning or an error, and what it threw."""
    outside: list[str] = field(default_factory=list)
    """Addresses that it asked for and that are no files beside it."""
    failed: list[str] = field(default_factory=list)
    """Files beside it that could not be loaded."""

    @property
    def violations(self) -> list[str]:
        """What its own security policy stopped."""
        found: list[str] = self.page.evaluate("() => window.__violations")
        return found

    @property
    def trouble(self) -> list[str]:
        """Everything that a page must not do."""
        return [*self.errors, *self.outside, *self.failed, *self.violations]

    def missing_pictures(self) -> list[str]:
        """Pictures that do not load, also those that only load when they come into view."""
        found: list[str] = self.page.evaluate(_MISSING_PICTURES)
        return found

    def focused(self) -> dict[str, Any]:
        """The element that has the focus: tag, name, and whether a ring around it is drawn."""
        found: dict[str, Any] = self.page.evaluate(_FOCUSED)
        return found

    def tab_to(self, selector: str, *, at_most: int = 60) -> dict[str, Any]:
        """Press Tab until an element that matches has the focus; returns it."""
        for _ in range(at_most):
            self.page.keyboard.press("Tab")
            matches = "(selector) => document.activeElement.matches(selector)"
            if self.page.evaluate(matches, selector):
                return self.focused()
        raise AssertionError(f"{at_most} times Tab never reached {selector}")


_MISSING_PICTURES = """async () => {
  const missing = [];
  for (const image of document.images) {
    image.loading = "eager";
    await image.decode().catch(() => missing.push(image.src));
  }
  return missing;
}"""

_FOCUSED = """() => {
  const element = document.activeElement, style = getComputedStyle(element);
  return {
    tag: element.tagName.toLowerCase(), id: element.id, text: element.textContent.trim(),
    href: element.getAttribute("href"),
    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
  };
}"""


@contextmanager
def opened(
    browser: Browser,
    file: Path,
    *,
    scheme: Scheme = "light",
    width: int = 1200,
    scripts: bool = True,
) -> Iterator[Opened]:
    """Open a file in a context of its own that has no network."""
    context = browser.new_context(
        offline=True,
        color_scheme=scheme,
        viewport={"width": width, "height": 900},
        java_script_enabled=scripts,
    )
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    context.add_init_script(_VIOLATIONS)
    page = context.new_page()
    seen = Opened(page, file)
    page.on("console", lambda m: m.type in ("error", "warning") and seen.errors.append(m.text))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    context.on("request", lambda r: r.url.startswith(HARMLESS) or seen.outside.append(r.url))
    page.on(
        "requestfailed", lambda r: r.failure != "net::ERR_ABORTED" and seen.failed.append(r.url)
    )
    try:
        page.goto(file.as_uri())
        yield seen
    finally:
        context.close()
