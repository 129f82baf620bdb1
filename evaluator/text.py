"""Text that others wrote, made fit to show or to hand on: prompts, names, settings. And numbers."""

from __future__ import annotations

import math
import re
import unicodedata

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])"
)
_SECRET = re.compile(
    r"token(?!iz)|secret|passw(?:or)?d|api[_-]?key|credential|authorization", re.IGNORECASE
)
_LOGIN_IN_URL = re.compile(r"(\w+://)[^\s/@]+@")
_SIGNED_URL = re.compile(r"(\w+://[^\s?#'\"]+)\?[^\s'\"]*(?:sig|token|key|cred)[^\s'\"]*", re.I)
_FORMULA = tuple("=+-@|%\t\r\n") + tuple("＝＋－＠")
_UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")

REDACTED = "(redacted)"


def plain(text: object, *, limit: int | None = None) -> str:
    """`text` on one line, without control, formatting and unassigned characters.

    Escape sequences go, and so do characters that reverse the direction of what follows them.
    Longer than `limit`, it ends with an ellipsis.
    """
    kept = visible(re.sub(r"\s+", " ", _ESCAPE_SEQUENCE.sub("", str(text)))).strip()
    return kept if limit is None or len(kept) <= limit else kept[: limit - 1].rstrip() + "…"


def visible(text: str) -> str:
    """`text` with its line breaks and tabs, and otherwise what `plain` leaves."""
    return "".join(
        c for c in _ESCAPE_SEQUENCE.sub("", text)
        if c in "\n\t\u200d\u200c" or unicodedata.category(c)[0] != "C"
    )  # fmt: skip


def number(value: float | None) -> str:
    """A number for people: about five significant digits; a dash where there is none."""
    if value is None or math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value != 0 and (abs(value) < 1e-4 or abs(value) >= 1e7):
        return f"{value:.3e}".replace("-", "−")
    places = 3 if value == 0 else min(6, max(1, 4 - math.floor(math.log10(abs(value)))))
    return f"{value:.{places}f}".replace("-", "−")


def formula_safe(text: str) -> str:
    """A cell that a spreadsheet shows instead of computing it: `=1+1` becomes `'=1+1`.

    So do cells that hide the sign behind spaces.
    """
    return "'" + text if text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA) else text


def redacted(value: object) -> object:
    """Settings, nested as they may be, without tokens, logins and signed addresses."""
    if isinstance(value, dict):
        return {
            str(name): REDACTED
            if _SECRET.search(str(name)) and inner not in (None, "")
            else redacted(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    if isinstance(value, str):
        return _SIGNED_URL.sub(r"\1?" + REDACTED, _LOGIN_IN_URL.sub(rf"\1{REDACTED}@", value))
    return value


def file_name(text: str) -> str:
    """A name that is safe as one part of a path, whatever `text` holds."""
    return _UNSAFE_IN_NAMES.sub("_", text).strip("._-")[:100] or "run"
