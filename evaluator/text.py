"""Text that others wrote, made fit to show or to hand on: prompts, names, settings. And numbers."""

from __future__ import annotations

import math
import re
import unicodedata

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])"
)
_HIDDEN = r"token(?!iz)|secret|passw(?:or)?d|api[_-]?key|credential|authorization"
_SECRET = re.compile(_HIDDEN, re.IGNORECASE)
_SECRET_NAME = rf"(?=[\w.-]{{0,200}}?(?:{_HIDDEN}))[\w.-]+"
_SECRET_LINE = re.compile(
    rf"""^([ ]*(?:-[ ]+)?["']?{_SECRET_NAME}["']?[ ]*:[ ]*)(?!null\b|~|\d+[ ]*$)\S.*$""",
    re.IGNORECASE | re.MULTILINE,
)
# Repetitions are bounded: a long word that others wrote must not take minutes.
_LOGIN_IN_URL = re.compile(r"(\b\w{1,32}://)[^\s/@]{1,2048}@")
_SIGNED_URL = re.compile(
    r"(\b\w{1,32}://[^\s?#'\"]{1,1024})\?(?=[^\s'\"]{0,2048}?(?:sig|token|key|cred))[^\s'\"]*",
    re.IGNORECASE,
)
_FORMULA = tuple("=+-@|%\t\r\n") + tuple("＝＋－＠")
_UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")

REDACTED = "(redacted)"


def plain(text: object, *, limit: int | None = None) -> str:
    """`text` on one line, without control, formatting and unassigned characters.

    Escape sequences go, and so do characters that reverse the direction of what follows them.
    Longer than `limit`, it ends with an ellipsis.
    """
    # Twice: what is not visible may stand between two spaces.
    kept = " ".join(visible(re.sub(r"\s+", " ", without_escapes(str(text)))).split())
    return kept if limit is None or len(kept) <= limit else kept[: limit - 1].rstrip() + "…"


def without_escapes(text: str) -> str:
    """`text` without the escape sequences of terminals."""
    return _ESCAPE_SEQUENCE.sub("", text)


def visible(text: str) -> str:
    """`text` without control, formatting and unassigned characters; line breaks and tabs stay."""
    kept = "\n\t\u200d\u200c"
    return "".join(c for c in text if c in kept or unicodedata.category(c)[0] != "C")


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


def count_of(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun, for people: `1 sample`, `30,000 samples`, `2 entries`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def formula_safe(text: str) -> str:
    """A cell that a spreadsheet shows instead of computing it: `=1+1` becomes `'=1+1`.

    So do cells that hide the sign behind spaces.
    """
    return "'" + text if text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA) else text


def redacted(text: str) -> str:
    """Settings without what nobody should read: tokens, logins, signed addresses."""
    text = _SECRET_LINE.sub(rf"\1{REDACTED}", text)
    return _SIGNED_URL.sub(rf"\1?{REDACTED}", _LOGIN_IN_URL.sub(rf"\1{REDACTED}@", text))


def without_secrets(value: object) -> object:
    """The same of settings that are nested as they may be."""
    if isinstance(value, dict):
        return {
            str(name): REDACTED
            if _SECRET.search(str(name)) and isinstance(inner, str) and inner
            else without_secrets(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in value]
    return redacted(value) if isinstance(value, str) else value


def file_name(text: str) -> str:
    """A name that is safe as one part of a path, whatever `text` holds."""
    return _UNSAFE_IN_NAMES.sub("_", text).strip("._-")[:100] or "run"
