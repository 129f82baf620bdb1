"""Text of several lines, made fit to show; what is one line or a number is `evaluator.text`'s."""

from __future__ import annotations

import re

from evaluator.text import decimals as decimals
from evaluator.text import formula_safe as formula_safe
from evaluator.text import number as number
from evaluator.text import plain as plain
from evaluator.text import redacted as redacted
from evaluator.text import visible, without_escapes


def preformatted(text: str, *, limit: int = 400) -> str:
    """One line as `plain` leaves it, but with its spaces, so that columns stay in line."""
    line = visible(re.sub(r"\s", " ", without_escapes(text))).rstrip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def plain_lines(text: str) -> str:
    """`plain`, line by line: indentation and line breaks stay."""
    lines = text.replace("\t", "    ").splitlines()
    return "\n".join(line[: len(line) - len(line.lstrip())] + plain(line) for line in lines)
