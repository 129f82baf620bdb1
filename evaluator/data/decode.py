"""From the bytes of an image to a tensor, with limits on what a hostile file may cost."""

from __future__ import annotations

import io
import re
import threading
import warnings
from typing import TYPE_CHECKING

from evaluator.errors import SampleError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

MAX_PIXELS = 64_000_000
MAX_IMAGE_BYTES = 256 * 1024 * 1024
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
# Pillow names the buffer by its address, which no two runs share; tables keep the reason.
_MEMORY = re.compile(r" <[^<>]* at 0x[0-9a-f]+>")

# Warning filters belong to the process, and images are decoded in threads.
_opening = threading.Lock()


def decode_image(data: bytes, *, name: str = "image", max_pixels: int = MAX_PIXELS) -> Tensor:
    """PNG, JPEG, WebP or BMP → (3, H, W) uint8 RGB on the CPU.

    The EXIF orientation is applied, ICC profiles are not. Transparency is composited over white,
    as a page would show it. 16-bit values keep their upper 8 bits. Of an animation, the first
    frame counts. Raises SampleError on anything undecodable, cut short, or of more than
    `max_pixels` pixels (Pillow's own limit of some 89 million always holds too).
    """
    import numpy as np
    import torch

    if len(data) > MAX_IMAGE_BYTES:
        raise SampleError(f"{name}: {len(data)} bytes, more than the {MAX_IMAGE_BYTES} allowed")
    try:
        with _open(data) as image:
            num_pixels = image.width * image.height
            if num_pixels > max_pixels:
                raise SampleError(
                    f"{name}: {image.width}×{image.height} pixels, more than the {max_pixels}"
                    " allowed"
                )
            pixels = np.array(_to_rgb(image), dtype=np.uint8)  # HWC, 3 channels
    except (SampleError, MemoryError):
        raise
    # Pillow's plugins raise whatever a damaged file leads them to: OSError, SyntaxError,
    # struct.error, zlib.error, IndexError and others.
    except Exception as error:
        reason = _MEMORY.sub("", " ".join(str(error).split())) or type(error).__name__
        raise SampleError(f"{name}: undecodable ({reason[:200]})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _open(data: bytes) -> Image.Image:
    """The header only; what Pillow merely warns about is an error here."""
    from PIL import Image, ImageFile

    with _opening, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # A library that switched this on would turn cut images into grey areas.
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        return Image.open(io.BytesIO(data), formats=_FORMATS)


def _to_rgb(image: Image.Image) -> Image.Image:
    """The first frame, upright, as RGB."""
    import numpy as np
    from PIL import Image, ImageOps

    image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey; colour arrives from Pillow as 8 bits already
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(page, image)
    return image.convert("RGB")
