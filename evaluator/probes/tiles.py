"""Tensors as pictures: a row for each sample, a tile for each channel, one grey scale for all."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MAX_SAMPLES = 8
MAX_CHANNELS = 16
MAX_SIDE = 512
"""Pixels of a tile; larger maps are thinned out evenly."""
MIN_SIDE = 64
"""Pixels of a tile; smaller maps are enlarged by a whole factor, without smoothing."""

NOT_FINITE = (255, 0, 160)
"""Magenta: no grey is like it."""
_GROUND = (21, 23, 28)
_GAP = 3


@dataclass(frozen=True, slots=True)
class Tiles:
    """The part of a tensor that is drawn, (samples, channels, H, W) float32."""

    values: NDArray[np.float32]

    def image(self) -> Image:
        """The picture. Its scale is that of the values drawn."""
        from PIL import Image

        pixels = grey(self.values)
        rows, columns, height, width = self.values.shape
        factor = max(1, math.ceil(MIN_SIDE / max(height, width)))
        high, wide = height * factor, width * factor
        size = (_GAP + columns * (wide + _GAP), _GAP + rows * (high + _GAP))
        sheet = Image.new("RGB", size, _GROUND)
        for row in range(rows):
            for column in range(columns):
                tile = pixels[row, column].repeat(factor, axis=0).repeat(factor, axis=1)
                corner = (_GAP + column * (wide + _GAP), _GAP + row * (high + _GAP))
                sheet.paste(Image.fromarray(tile), corner)
        return sheet


def grey(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(…) → (…, 3) uint8: lowest black, highest white, constant mid-grey, not finite magenta."""
    known = np.isfinite(values)
    finite = values[known].astype(np.float64)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    shade = np.full(values.shape, 0.5)
    if high > low:
        shade[known] = (finite - low) / (high - low)
    pixels: NDArray[np.uint8] = np.rint(shade * 255).astype(np.uint8)[..., None].repeat(3, axis=-1)
    pixels[~known] = NOT_FINITE
    return pixels


def tiles_of(values: Tensor) -> Tiles:
    """Copy what a picture of (…) shows to the CPU; at least one value.

    (B, C, H, W) as it is; (C, H, W) is one sample, (H, W) one channel of it, (B, C, F, H, W) shows
    its first frame, and fewer dimensions one row of pixels.
    """
    import torch

    if values.ndim > 4:
        values = values.flatten(2, -3)[:, :, 0]
    while values.ndim < 4:
        values = values.unsqueeze(0)
    steps = [math.ceil(size / MAX_SIDE) for size in values.shape[2:]]
    shown = values[:MAX_SAMPLES, :MAX_CHANNELS, :: steps[0], :: steps[1]]
    # What float32 cannot hold would look infinite.
    limit = torch.finfo(torch.float32).max
    held = torch.where(shown.isfinite(), shown.clamp(-limit, limit), shown)
    return Tiles(held.to(device="cpu", dtype=torch.float32, copy=True).numpy())
