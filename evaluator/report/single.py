"""A page with everything in it: pictures as data, and no link to a file that is not sent along."""

from __future__ import annotations

import base64
import re
from pathlib import Path

MAX_BYTES = 64 * 2**20
"""Pictures put into a page; those beyond are left out, and the page says so."""

_KINDS = {".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}
_PICTURE = re.compile(r'(<img\b[^>]*?\bsrc=")([^":#]+)(")')
_LINK = re.compile(r'<a href="[^":#][^":]*">(.*?)</a>', re.DOTALL)


def data_uri(path: Path) -> str:
    """A picture as an address that holds it."""
    content = base64.b64encode(path.read_bytes()).decode()
    return f"data:{_KINDS[path.suffix.lower()]};base64,{content}"


def pictures_inside(folder: Path, *places: str) -> tuple[dict[str, str], int]:
    """Name → address of the pictures under some places of `folder`, and how many did not fit."""
    inside: dict[str, str] = {}
    total = left_out = 0
    for place in places:
        for path in sorted((folder / place).glob("*.webp")):
            total += path.stat().st_size
            if total > MAX_BYTES:
                left_out += 1
            else:
                inside[f"{place}/{path.name}"] = data_uri(path)
    return inside, left_out


def alone(page: str, folder: Path, inside: dict[str, str]) -> str:
    """The page with its pictures in it, and with the names of files in place of links to them.

    Only attributes that a template wrote can match: in texts quotes are escaped, and in JSON too.
    """

    def embedded(match: re.Match[str]) -> str:
        name = match[2]
        target = folder / name
        address = inside.get(name) or (data_uri(target) if target.is_file() else "")
        return f"{match[1]}{address}{match[3]}"

    return _LINK.sub(r"\1", _PICTURE.sub(embedded, page))
