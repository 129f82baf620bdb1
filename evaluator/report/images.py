"""Kept images, read out of a shard's tar: decoded with limits, made small."""

from __future__ import annotations

import io
import re
import tarfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

MAX_PIXELS = 50_000_000
"""Images with more pixels are left out of the report."""

MAX_BYTES = 200_000_000
"""Members with more bytes are left out of the report."""

THUMBNAIL = 256
"""Longest side of a thumbnail; a smaller image keeps its size."""

LARGE = 1024
"""Longest side of the image that a thumbnail links to."""

_NAME = re.compile(r"(?P<key>[^/.]+)__(?P<index>\d+)\.(?:png|webp|jpg|jpeg)\Z")
_FORMATS = ("PNG", "WEBP", "JPEG")


class SampleId(NamedTuple):
    """Identity of a sample in every table."""

    key: str
    image_index: int


def read_images(tar: Path, wanted: Collection[SampleId]) -> Iterator[tuple[SampleId, Image.Image]]:
    """The wanted images of one shard as RGB, in the tar's order; stops after the last of them.

    Nothing is extracted. What cannot be decoded within the limits is left out: a report shows
    what it can. A missing tar gives nothing.
    """
    left = set(wanted)
    try:
        with tarfile.open(tar, mode="r:") as archive:
            while left and (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else all are remembered
                match = _NAME.match(member.name)
                if match is None or not member.isreg() or member.size > MAX_BYTES:
                    continue
                sample = SampleId(match["key"], int(match["index"]))
                file = archive.extractfile(member) if sample in left else None
                image = decode(file.read()) if file is not None else None
                left.discard(sample)
                if image is not None:
                    yield sample, image
    except (OSError, tarfile.TarError):
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
