"""Whether people who do not see a page, or see it badly, can use it; asked of the browser."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

NAMED_ROLES = {
    "button", "link", "textbox", "searchbox", "combobox", "listbox", "checkbox", "radio",
    "slider", "spinbutton", "img", "image", "dialog", "region", "table", "grid", "meter",
}  # fmt: skip
"""Roles that say nothing without a name."""


def nameless(page: Page) -> list[str]:
    """Elements that need a name and have none, as the browser tells its screen readers."""
    session = page.context.new_cdp_session(page)
    try:
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        return [_outer(session, node) for node in nodes if _lacks_name(node)]
    finally:
        session.detach()


def _lacks_name(node: dict[str, Any]) -> bool:
    role = node.get("role", {}).get("value")
    if node.get("ignored") or role not in NAMED_ROLES:
        return False
    return not str(node.get("name", {}).get("value", "")).strip()


def _outer(session: Any, node: dict[str, Any]) -> str:
    identity = {"backendNodeId": node["backendDOMNodeId"]}
    return str(session.send("DOM.getOuterHTML", identity)["outerHTML"])[:200]


def faint(page: Page) -> list[str]:
    """Texts whose contrast with their ground is below WCAG 2.2's AA (1.4.3), as computed.

    4.5 to 1, or 3 to 1 for large text (24 pixels, or 18.66 in bold). Text that lies over the
    cells of a drawing (classes `on-dark`, `on-bright`) has the cell as its ground, which styles
    do not tell, and is left out.
    """
    found: list[str] = page.evaluate(_FAINT)
    return found


def misshapen(page: Page) -> list[str]:
    """Ids given twice, references to ids that are not there, headings that skip a level.

    A link to `#name=value` is the page's own state, not a place.
    """
    found: list[str] = page.evaluate(_MISSHAPEN)
    return found


_FAINT = """() => {
  const parse = (text) => {
    const n = (text.match(/-?[\\d.]+(e-?\\d+)?/g) || []).map(Number);
    if (text.startsWith("color(srgb")) return [255 * n[0], 255 * n[1], 255 * n[2], n[3] ?? 1];
    return text.startsWith("rgb") ? [n[0], n[1], n[2], n[3] ?? 1] : [0, 0, 0, 0];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const canvas = matchMedia("screen and (prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
  const ground = (element) => {
    if (!element) return canvas;
    const own = parse(getComputedStyle(element).backgroundColor);
    return own[3] === 0 ? ground(element.parentElement) : over(own, ground(element.parentElement));
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((v) => v / 255).map(
      (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const opacity = (element) => element
    ? parseFloat(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1;
  const faint = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest("script, style, title, desc")) continue;
    if (element.closest(".on-dark, .on-bright, .skip") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), svg = element instanceof SVGElement;
    const under = ground(element), ink = parse(svg ? style.fill : style.color);
    ink[3] *= opacity(element);
    const [low, high] = [luminance(under), luminance(over(ink, under))].sort((a, b) => a - b);
    const size = parseFloat(style.fontSize), bold = parseInt(style.fontWeight) >= 700;
    const needed = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < needed)
      faint.add(`${element.tagName}.${element.getAttribute("class")} ${ratio.toFixed(2)} `
        + `${node.textContent.trim().slice(0, 40)}`);
  }
  return [...faint];
}"""

_MISSHAPEN = """() => {
  const found = [], ids = new Set();
  for (const element of document.querySelectorAll("[id]")) {
    if (ids.has(element.id)) found.push(`id ${element.id} is given twice`);
    ids.add(element.id);
  }
  for (const name of ["aria-labelledby", "aria-describedby", "aria-controls", "for"])
    for (const element of document.querySelectorAll(`[${name}]`))
      for (const id of element.getAttribute(name).split(/\\s+/))
        if (!ids.has(id)) found.push(`${name} names ${id}, which is not there`);
  for (const link of document.querySelectorAll("a[href^='#']"))
    if (!link.hash.includes("=") && !ids.has(decodeURIComponent(link.hash.slice(1))))
      found.push(`a link leads to ${link.hash}, which is not there`);
  let level = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    if (!heading.checkVisibility()) continue;
    const next = Number(heading.tagName[1]);
    if (next > level + 1) found.push(`${heading.tagName} follows H${level}: ${heading.textContent}`);
    level = next;
  }
  if (document.querySelectorAll("h1").length !== 1) found.push("expected one h1");
  return found;
}"""
