"""Contact sheets: many small pictures with captions in one PNG, for slides and chats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from evaluator.report.text import plain

BACKGROUND = (21, 23, 28)
INK = (232, 234, 238)
FAINT = (160, 166, 176)
_GAP = 8
_SIZE = 12
_LINE = 16


class Tile(NamedTuple):
    """A picture and the words under it."""

    picture: Image.Image | None
    caption: str


class Row(NamedTuple):
    """A line of tiles under an optional title."""

    title: str
    tiles: Sequence[Tile]


def write_sheet(path: Path, rows: Sequence[Row], *, side: int, lines: int = 1) -> None:
    """Draw `rows` of tiles of `side` pixels, each with a caption of `lines` lines."""
    font = ImageFont.load_default(_SIZE)
    tile_height = side + lines * _LINE + _GAP
    heights = [(_LINE + _GAP if row.title else 0) + tile_height for row in rows]
    width = max(len(row.tiles) for row in rows) * (side + _GAP) + _GAP
    sheet = Image.new("RGB", (width, sum(heights) + _GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        offset = 0
        if row.title:
            pen.text((_GAP, top), shortened(row.title, width - 2 * _GAP, font), INK, font)
            offset = _LINE + _GAP // 2
        for i, tile in enumerate(row.tiles):
            _draw(sheet, pen, font, tile, (_GAP + i * (side + _GAP), top + offset), side, lines)
        top += height
    sheet.save(path, optimize=True)


def _draw(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    tile: Tile,
    corner: tuple[int, int],
    side: int,
    lines: int,
) -> None:
    left, top = corner
    if tile.picture is not None:
        spare = ((side - tile.picture.width) // 2, (side - tile.picture.height) // 2)
        sheet.paste(tile.picture, (left + spare[0], top + spare[1]))
    for i, line in enumerate(wrapped(tile.caption, side, font, lines)):
        pen.text((left, top + side + 2 + i * _LINE), line, FAINT, font)


def shortened(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """`text` cut to `width` pixels, with an ellipsis where something was cut."""
    text = plain(text, limit=400)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def wrapped(
    text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, lines: int
) -> list[str]:
    """`text` in at most `lines` lines of `width` pixels; the last one is cut."""
    words = plain(text, limit=400).split(" ")
    out: list[str] = []
    while words and len(out) < lines - 1:
        line = words.pop(0)
        while words and font.getlength(f"{line} {words[0]}") <= width:
            line = f"{line} {words.pop(0)}"
        out.append(shortened(line, width, font))
    return [*out, shortened(" ".join(words), width, font)] if words else out


def grid(tiles: Sequence[Tile], columns: int) -> list[Row]:
    """Tiles in rows of `columns`, without titles."""
    return [Row("", tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
