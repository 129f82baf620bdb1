"""Labelled pictures of what a verb found: grids of images, maps of numbers, curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

TILE = 96
"""Longest side of an image in a grid that is smaller itself."""
MAX_TILE = 256
FONT_SIZE = 12
LINE = 18
"""Height of a line of text."""
GAP = 4
LABEL_WIDTH = 220
"""Pixels that a row's label may take."""
SCALE = 200
"""Width of a map's scale of colours, its numbers included."""
INK, PAPER, ABSENT = (20, 20, 20), (255, 255, 255), (235, 235, 235)
CURVE_COLOURS = ((36, 80, 160), (190, 50, 35), (60, 130, 60), (120, 70, 150))
_COLD, _WARM = np.array((36, 80, 160.0)), np.array((190, 50, 35.0))

Picture = Image.Image


def image_grid(
    rows: Sequence[Sequence[Tensor | None]],
    *,
    title: str = "",
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> Picture:
    """Rows of (3, H, W) uint8 images as one picture; None leaves its place empty.

    Images of one row and column may differ in size. Small ones are enlarged by whole factors, so
    that every pixel stays what it is.
    """
    tiles = [[None if image is None else _tile(image) for image in row] for row in rows]
    present = [tile for row in tiles for tile in row if tile is not None]
    width = max((tile.width for tile in present), default=TILE)
    height = max((tile.height for tile in present), default=TILE)
    columns = max(len(row) for row in tiles)
    left = LABEL_WIDTH if row_labels else GAP
    top = GAP + LINE * (bool(title) + bool(column_labels))
    size = (left + columns * (width + GAP), top + len(tiles) * (height + GAP))
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    _text(draw, title, (GAP, GAP), size[0] - 2 * GAP)
    for c, label in enumerate(column_labels):
        _text(draw, label, (left + c * (width + GAP), top - LINE), width)
    for r, row in enumerate(tiles):
        y = top + r * (height + GAP)
        if row_labels:
            _text(draw, row_labels[r], (GAP, y + height // 2 - LINE // 2), left - 2 * GAP)
        for c, tile in enumerate(row):
            x = left + c * (width + GAP)
            if tile is None:
                draw.rectangle((x, y, x + width - 1, y + height - 1), fill=ABSENT)
            else:
                canvas.paste(tile, (x, y))
    return canvas


def plain_pictures(pictures: Sequence[Tensor], *, name: str) -> list[str]:
    """A note about those of `name`, (3, H, W) uint8, that show one colour alone: no decoder does.

    Where it gives NaN or infinity, the picture is grey; float16 may overflow in it.
    """
    plain = sum(bool((picture == picture[:, :1, :1]).all()) for picture in pictures)
    if not plain:
        return []
    return [
        f"{plain} of the {len(pictures)} pictures in {name} show one colour alone: NaN, infinity "
        "or a constant was predicted there or decoded to. Where the numbers are sound, the "
        "decoder is broken, or overflows in half precision: try --dtype float32"
    ]


def number_map(
    values: NDArray[np.floating],
    *,
    labels: Sequence[str],
    title: str = "",
    low: float = -1.0,
    high: float = 1.0,
) -> Picture:
    """A square map of (N, N) numbers: blue at `low`, white between, red at `high`; its scale."""
    cell = max(12, min(48, 720 // max(len(labels), 1)))
    left, top = LABEL_WIDTH, GAP + LINE * bool(title)
    bottom = top + cell * len(labels) + GAP
    canvas = Image.new("RGB", (left + max(cell * len(labels), SCALE) + GAP, bottom + LINE + GAP))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, *canvas.size), fill=PAPER)
    _text(draw, title, (GAP, GAP), canvas.width - 2 * GAP)
    _scale(draw, (left, bottom), low, high)
    for r, row in enumerate(values):
        _text(draw, labels[r], (GAP, top + r * cell + (cell - LINE) // 2), left - 2 * GAP)
        for c, value in enumerate(row):
            x, y = left + c * cell, top + r * cell
            fill = _heat(float(value), low, high)
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=fill)
            if cell >= 36 and math.isfinite(value):
                ink = INK if sum(fill) > 3 * 140 else PAPER
                draw.text((x + 4, y + cell // 2 - 7), f"{value:.2f}", ink, font=_font())
    return canvas


def _scale(draw: ImageDraw.ImageDraw, place: tuple[int, int], low: float, high: float) -> None:
    """The colours from `low` to `high`, `SCALE` pixels wide with the numbers at their ends."""
    (x, y), gap = place, 24
    for i in range(bar := SCALE - 2 * gap):
        value = low + (high - low) * i / (bar - 1)
        draw.line((x + gap + i, y, x + gap + i, y + LINE - 4), fill=_heat(value, low, high))
    draw.text((x, y), f"{low:g}", INK, font=_font())
    draw.text((x + SCALE - gap + 6, y), f"{high:g}", INK, font=_font())


class Curve(NamedTuple):
    """Points of a line, left to right, and what lies around them."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    """Ends of the interval at each point; NaN where there is none."""
    label: str


def curve_chart(curves: Sequence[Curve], *, title: str, x_label: str) -> Picture:
    """Curves with their intervals over one axis, on a logarithmic scale."""
    width, height, left, top = 640, 360, 64, 2 * GAP + LINE
    right, bottom = width - 16, height - 2 * LINE - GAP
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    _text(draw, title, (GAP, GAP), width - 2 * GAP)
    xs = [x for curve in curves for x in curve.x if math.isfinite(x)]
    ys = [y for c in curves for y in (*c.y, *c.low, *c.high) if math.isfinite(y) and y > 0]
    if not xs or not ys:
        return canvas
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1e-9)
    decades = range(math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)) + 1e-9) + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (math.log10(max(y, 10.0 ** decades[0])) - decades[0]) / max(1, len(decades) - 1)
        across = (x - x_low) / (x_high - x_low)
        return left + across * (right - left), bottom - share * (bottom - top)

    for decade in decades:
        y = place(x_low, 10.0**decade)[1]
        draw.line((left, y, right, y), fill=ABSENT)
        draw.text((GAP, y - 7), f"{10.0**decade:g}", INK, font=_font())
    for x in round_ticks(x_low, x_high):
        at, said = place(x, 10.0 ** decades[0])[0], f"{x:g}"
        half = draw.textlength(said, font=_font()) / 2
        draw.text((min(at, width - 2 - half) - half, bottom + GAP), said, INK, font=_font())
    _text(draw, x_label, (left, bottom + LINE + GAP), right - left)
    for number, curve in enumerate(curves):
        colour = CURVE_COLOURS[number % len(CURVE_COLOURS)]
        _curve(draw, curve, place, colour)
    _legend(draw, [curve.label for curve in curves], (right - 150, top))
    return canvas


def _legend(draw: ImageDraw.ImageDraw, labels: Sequence[str], at: tuple[int, int]) -> None:
    """Names of curves in their colours, over whatever runs beneath them."""
    for number, label in enumerate(labels):
        place = (at[0], at[1] + LINE * number)
        draw.rectangle(draw.textbbox(place, label, font=_font()), fill=PAPER)
        colour = CURVE_COLOURS[number % len(CURVE_COLOURS)]
        draw.text(place, label, colour, font=_font())


def round_ticks(low: float, high: float) -> list[float]:
    """The multiples of 1, 2 or 5 times a power of ten in [low, high], about five of them."""
    if high - low < 1e-6 * max(1.0, abs(high)):
        return [low]
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _curve(
    draw: ImageDraw.ImageDraw,
    curve: Curve,
    place: Callable[[float, float], tuple[float, float]],
    colour: tuple[int, int, int],
) -> None:
    rows = sorted(zip(curve.x, curve.y, curve.low, curve.high, strict=True))
    known = [row for row in rows if math.isfinite(row[0]) and math.isfinite(row[1])]
    draw.line([place(x, y) for x, y, _, _ in known], fill=colour, width=2)
    for x, y, low, high in known:
        if math.isfinite(low) and math.isfinite(high):
            draw.line([place(x, low), place(x, high)], fill=colour)
        across, down = place(x, y)
        draw.ellipse((across - 3, down - 3, across + 3, down + 3), fill=colour)


def _tile(image: Tensor) -> Picture:
    """One image, enlarged by a whole factor or reduced to `MAX_TILE`."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    longest = max(picture.size)
    if longest <= TILE:
        factor = max(1, TILE // longest)
        size = (picture.width * factor, picture.height * factor)
        return picture.resize(size, Image.Resampling.NEAREST)
    if longest > MAX_TILE:
        picture.thumbnail((MAX_TILE, MAX_TILE), Image.Resampling.LANCZOS)
    return picture


def _heat(value: float, low: float, high: float) -> tuple[int, int, int]:
    if not math.isfinite(value):
        return ABSENT
    place = 2 * (min(max(value, low), high) - low) / (high - low) - 1
    end = _WARM if place > 0 else _COLD
    red, green, blue = np.rint(255 + abs(place) * (end - 255)).astype(int).tolist()
    return red, green, blue


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(FONT_SIZE)


def _text(draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], width: int) -> None:
    """One line of text, cut where its place ends."""
    font = _font()
    text = text.replace("\N{MINUS SIGN}", "-")  # the font has none
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    while line and font.getlength(line) > width:
        line = line[:-2].rstrip() + "…" if len(line) > 2 else ""
    draw.text(at, line, INK, font=font)
