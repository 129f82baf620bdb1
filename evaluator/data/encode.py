"""From a tensor to the bytes of an image: the codecs in which generated images are kept."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_WEBP_LIMIT = 16383


class ImageFormat(NamedTuple):
    """How images are encoded."""

    extension: str
    """`png` or `webp`."""
    quality: int | None
    """0 to 100 for lossy WebP; None is lossless."""


class EncodedImage(NamedTuple):
    """An image as it goes into a tar."""

    data: bytes
    extension: str


def parse_image_format(text: str) -> ImageFormat:
    """`png`, `webp` (lossless) or `webp:<quality>`; InputError for anything else."""
    if text in ("png", "webp"):
        return ImageFormat(text, None)
    name, _, quality = text.partition(":")
    if name == "webp" and quality.isascii() and quality.isdecimal() and int(quality) <= 100:
        return ImageFormat(name, int(quality))
    raise InputError(
        f"expected the image format 'png', 'webp' (lossless) or 'webp:<quality 0 to 100>', got"
        f" {text!r}; choose one of these"
    )


def encode_image(image: Tensor, format: str) -> EncodedImage:
    """(3, H, W) uint8 → bytes in `format`: the same image gives the same bytes.

    `png` and `webp` give back every pixel; `webp:<quality>` does not.
    """
    import torch
    from PIL import Image

    codec = parse_image_format(format)
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
        raise ValueError(
            f"expected an image (3, H, W) uint8, got {tuple(image.shape)} {image.dtype}; convert it"
        )
    if codec.extension == "webp" and max(image.shape) > _WEBP_LIMIT:
        raise InputError(
            f"expected at most {_WEBP_LIMIT} pixels a side for WebP, got {tuple(image.shape)};"
            " keep images as png"
        )
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    buffer = io.BytesIO()
    if codec.extension == "png":
        picture.save(buffer, "PNG", compress_level=6)
    elif codec.quality is None:
        # For lossless WebP `quality` is effort: slower and smaller, the same pixels.
        picture.save(buffer, "WEBP", lossless=True, quality=50, method=4, exact=True)
    else:
        picture.save(buffer, "WEBP", quality=codec.quality, method=4)
    return EncodedImage(buffer.getvalue(), codec.extension)
