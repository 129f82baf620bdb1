"""Text that others wrote, made fit to show: prompts, keys, warnings, settings. And numbers."""

from __future__ import annotations

import math
import re
import unicodedata

_HIDDEN = r"token(?!iz)|secret|passw(?:or)?d|api[_-]?key|credential|authorization"
_SECRET_NAME = rf"[\w.-]*(?:{_HIDDEN})[\w.-]*"
_SECRET_LINE = re.compile(
    rf"""^([ ]*(?:-[ ]+)?["']?{_SECRET_NAME}["']?[ ]*:[ ]*)(?!null\b|~|\d+[ ]*$)\S.*$""",
    re.IGNORECASE | re.MULTILINE,
)
_LOGIN_IN_URL = re.compile(r"(\w+://)[^\s/@]+@")
_SIGNED_URL = re.compile(r"(https?://[^\s?#'\"]+)\?[^\s'\"]*(?:sig|token|key|cred)[^\s'\"]*", re.I)


_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])"
)


def plain(text: object, *, limit: int | None = None) -> str:
    """`text` on one line, without control, formatting and unassigned characters.

    That leaves out escape sequences, characters that XML forbids, and those that reverse the
    direction of what follows them. Longer than `limit`, it ends with an ellipsis.
    """
    kept = _visible(re.sub(r"\s+", " ", _ESCAPE_SEQUENCE.sub("", str(text)))).strip()
    return kept if limit is None or len(kept) <= limit else kept[: limit - 1].rstrip() + "…"


def _visible(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c)[0] != "C" or c in "\u200d\u200c")


def preformatted(text: str, *, limit: int = 400) -> str:
    """One line as `plain` leaves it, but with its spaces, so that columns stay in line."""
    line = _visible(re.sub(r"\s", " ", _ESCAPE_SEQUENCE.sub("", text))).rstrip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def plain_lines(text: str) -> str:
    """`plain`, line by line: indentation and line breaks stay."""
    lines = text.replace("\t", "    ").splitlines()
    return "\n".join(line[: len(line) - len(line.lstrip())] + plain(line) for line in lines)


def redacted(text: str) -> str:
    """Settings without what nobody should read in a report: tokens, logins, signed addresses."""
    text = _SECRET_LINE.sub(r"\1(redacted)", text)
    text = _LOGIN_IN_URL.sub(r"\1(redacted)@", text)
    return _SIGNED_URL.sub(r"\1?(redacted)", text)


def decimals(value: float) -> int:
    """How many decimals show about five significant digits of `value`."""
    if not math.isfinite(value) or value == 0:
        return 3
    return min(6, max(1, 4 - math.floor(math.log10(abs(value)))))


def number(value: float | None, *, places: int | None = None) -> str:
    """A number for people: about five significant digits; a dash where there is none."""
    if value is None or math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value != 0 and (abs(value) < 1e-4 or abs(value) >= 1e7):
        return f"{value:.3e}".replace("-", "−")
    return f"{value:.{decimals(value) if places is None else places}f}".replace("-", "−")


def formula_safe(text: str) -> str:
    """A cell that a spreadsheet shows instead of computing it."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "|", "%")) else text
