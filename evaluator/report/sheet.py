"""Contact sheets: many small pictures with captions in one PNG, for slides and chats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from evaluator.report.text import plain

BACKGROUND = (255, 255, 255)
INK = (22, 25, 31)
FAINT = (84, 92, 106)
_GAP = 8
_SIZE = 12
_LINE = 16


class Tile(NamedTuple):
    """A picture and the words under it."""

    picture: Image.Image | None
    caption: str


class Row(NamedTuple):
    """A line of tiles, and what it is called."""

    title: str
    tiles: Sequence[Tile]


def write_sheet(
    path: Path, rows: Sequence[Row], *, side: int, lines: int = 1, margin: int = 0
) -> None:
    """Draw `rows` of tiles of `side` pixels, each with a caption of `lines` lines.

    A row's title stands above it, or in a left margin of `margin` pixels.
    """
    font = ImageFont.load_default(_SIZE)
    heights, width = _layout(rows, side, lines, margin)
    sheet = Image.new("RGB", (width, sum(heights) + _GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        at, room = (top, width - 2 * _GAP)
        if margin:
            at, room = top + (side - _LINE) // 2, margin - _GAP
        pen.text((_GAP, at), shortened(row.title, room, font), INK, font)
        offset = _LINE + _GAP // 2 if row.title and not margin else 0
        for i, tile in enumerate(row.tiles):
            corner = (margin + _GAP + i * (side + _GAP), top + offset)
            _draw(sheet, pen, font, tile, corner, side, lines)
        top += height
    sheet.save(path, compress_level=4)


def _layout(rows: Sequence[Row], side: int, lines: int, margin: int) -> tuple[list[int], int]:
    """Height of each row, and the width of the sheet. Only captions that are there take room."""
    heights = []
    for row in rows:
        captions = lines * _LINE if any(tile.caption for tile in row.tiles) else 0
        title = _LINE + _GAP if row.title and not margin else 0
        heights.append(title + side + captions + _GAP)
    return heights, margin + max(len(row.tiles) for row in rows) * (side + _GAP) + _GAP


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
