"""The resizes that published numbers rest on, each matching its reference implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Filter = Literal["bilinear", "bicubic"]


def pillow_image(image: Tensor) -> Image.Image:
    """(3, H, W) uint8 → an RGB image of Pillow."""
    from PIL import Image

    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def resize_pillow(image: Tensor, size: int, filter: Filter) -> Tensor:
    """(3, H, W) uint8 → (3, size, size) float32 from 0 to 1, whatever the aspect was.

    Pillow's antialiased filter on 8-bit pixels, which rounds to 8 bits again: what torchvision's
    `Resize` followed by `ToTensor` does to a Pillow image.
    """
    import numpy as np
    import torch
    from PIL import Image

    kind = Image.Resampling[filter.upper()]
    resized = np.asarray(pillow_image(image).resize((size, size), kind))
    return torch.from_numpy(resized.copy()).permute(2, 0, 1).float() / 255


def resize_torch_bicubic(image: Tensor, size: int) -> Tensor:
    """(3, H, W) uint8 → (3, size, size) float32, about 0 to 1, whatever the aspect was.

    Antialiased bicubic on float32, neither rounded nor clipped: what EDM2's
    `calculate_metrics.py` (Karras et al. 2024) does before DINOv2.
    """
    import torch

    resized = torch.nn.functional.interpolate(
        image[None].float(), (size, size), mode="bicubic", antialias=True
    )
    return resized[0] / 255


def resize_clean(image: Tensor, size: int) -> Tensor:
    """(3, H, W) uint8 → (3, size, size) float32 from 0 to 255.

    Parmar et al. 2022 (clean-fid): Pillow's antialiased bicubic on each channel as float32,
    clipped to 0 … 255 and not rounded to 8 bits.
    """
    import numpy as np
    import torch
    from PIL import Image

    channels = [
        np.asarray(Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC))
        for channel in image.to(torch.float32).numpy()
    ]
    return torch.from_numpy(np.stack(channels).clip(0, 255))


def resize_legacy(image: Tensor, size: int) -> Tensor:
    """(3, H, W) uint8 → (3, size, size) float32 from 0 to 255.

    TensorFlow 1's `resize_bilinear` without aligned corners, as the first Inception Score and
    FID code used it: no antialias, and the sample at output i is read at i · (in / out) with no
    half-pixel offset. Every product and sum is rounded to float32 as there.
    """
    import torch

    pixels = image.to(torch.float32)

    def places(length: int) -> tuple[Tensor, Tensor, Tensor]:
        position = torch.arange(size, dtype=torch.float32) * torch.tensor(length / size)
        low = position.long()
        return low, (low + 1).clamp_max(length - 1), position - low.float()

    top, bottom, down = places(pixels.shape[1])
    left, right, along = places(pixels.shape[2])
    # Along rows first: only then do the rounded sums agree with the reference to the bit.
    upper, lower = pixels[:, top], pixels[:, bottom]
    upper = upper[:, :, left] + (upper[:, :, right] - upper[:, :, left]) * along
    lower = lower[:, :, left] + (lower[:, :, right] - lower[:, :, left]) * along
    return upper + (lower - upper) * down[:, None]
