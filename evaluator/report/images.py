"""Kept images, read out of a shard's tar: decoded with limits, made small."""

from __future__ import annotations

import io
import tarfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from evaluator.data.kept import parse_member

MAX_PIXELS = 50_000_000
"""Images with more pixels are left out of the report."""

MAX_BYTES = 256 * 2**20
"""And files that are larger."""

THUMBNAIL = 256
"""Longest side of a thumbnail; a smaller image keeps its size."""

LARGE = 1024
"""Longest side of the image that a thumbnail links to."""

_FORMATS = ("PNG", "WEBP", "JPEG")


class SampleId(NamedTuple):
    """Identity of a sample in every table."""

    key: str
    image_index: int


def read_images(tar: Path, wanted: Collection[SampleId]) -> Iterator[tuple[SampleId, Image.Image]]:
    """The wanted images of one shard as RGB, in the tar's order; stops after the last of them.

    Nothing is extracted, and of the others only their headers are read. What cannot be decoded
    within the limits is left out: a report shows what it can. A missing tar gives nothing.
    """
    left = set(wanted)
    if not left or not tar.exists():
        return
    try:
        with tarfile.open(tar, "r:") as members, tar.open("rb") as file:
            for member in members:
                sample = SampleId(*parse_member(member.name.partition(".")[0]))
                if sample in left and member.isreg() and member.size <= MAX_BYTES:
                    left.remove(sample)
                    file.seek(member.offset_data)
                    if (image := decode(file.read(member.size))) is not None:
                        yield sample, image
                if not left:
                    return
    except (OSError, tarfile.TarError, ValueError):
        return


def decode(content: bytes) -> Image.Image | None:
    """An RGB image, or None when the bytes are no image that fits the limits."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    return None
                return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning):
        return None


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The image with its longest side at most `side`; never enlarged."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def enlarged(image: Image.Image, side: int) -> Image.Image:
    """The image fitted into a square of `side`; pixels of small ones stay crisp squares."""
    if max(image.size) >= side:
        return fitted(image, side)
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.NEAREST)
