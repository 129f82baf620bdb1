"""Images made alike for a form: one size, one codec, no metadata."""

from __future__ import annotations

import base64
import io
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
from PIL import Image

Name = TypeVar("Name", bound=Hashable)

CRISP = 128
"""Images with no side above this are kept to the bit, and shown with sharp pixels."""

QUALITY = 90
"""Of WebP, for larger images."""

TILES = 4
"""Tiles along a side of a spoilt image."""

SIZES_DIFFER = 1.1
"""Ratio of median sides above which real and generated images may be told by their sharpness."""


def data_address(image: Image.Image) -> str:
    """The image as `data:image/webp;base64,…`; of Pillow's image nothing but pixels is written."""
    out = io.BytesIO()
    bare = Image.fromarray(np.asarray(image.convert("RGB")))
    small = max(bare.size) <= CRISP
    bare.save(out, "WEBP", lossless=small, quality=100 if small else QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def centred_square(image: Image.Image) -> Image.Image:
    """The largest square in the middle: a shape must not tell who made an image."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def spoilt(image: Image.Image, seed: int) -> Image.Image:
    """The image with its 4 x 4 tiles shuffled, none where it was: plainly worse, as bright."""
    pixels = np.asarray(image.convert("RGB"))
    height, width = max(1, image.height // TILES), max(1, image.width // TILES)
    corners = [(y * height, x * width) for y in range(TILES) for x in range(TILES)]
    order = np.random.default_rng(seed).permutation(len(corners))
    mixed = pixels.copy()
    for place, other in zip(order, np.roll(order, 1), strict=True):
        (y, x), (v, u) = corners[place], corners[other]
        mixed[y : y + height, x : x + width] = pixels[v : v + height, u : u + width]
    return Image.fromarray(mixed)


def made_alike(
    images: Mapping[Name, Image.Image], source_of: Mapping[Name, int], side: int
) -> tuple[dict[Name, Image.Image], list[str]]:
    """Square images at one side: the smallest of the sources' medians, at most `side`.

    Each image goes through one Lanczos resampling where it has another size. Warns where sources
    differ in size: what was made smaller looks sharper.
    """
    medians = {}
    for source in sorted(set(source_of.values())):
        sides = [images[name].width for name in images if source_of[name] == source]
        medians[source] = float(np.median(sides)) if sides else float(side)
    common = min(side, int(min(medians.values())))
    warnings = []
    if min(max(medians.values()), 4 * side) > SIZES_DIFFER * min(medians.values()):
        sizes = ", ".join(f"{median:.0f}" for median in sorted(medians.values()))
        warnings.append(
            f"images of different sizes (medians {sizes} pixels) are shown at {common}: what was "
            "made smaller looks sharper, and may be told by that"
        )
    alike = {}
    for name, image in images.items():
        same = image.width == common
        alike[name] = image if same else image.resize((common, common), Image.Resampling.LANCZOS)
    return alike, warnings
