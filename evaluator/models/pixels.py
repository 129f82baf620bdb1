"""From a model's floats to pixels; what is no number is said to be none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluator.errors import NonFiniteError, SampleError

if TYPE_CHECKING:
    from torch import Tensor


def to_pixels(values: Tensor, *, remedy: str) -> list[Tensor | SampleError]:
    """(B, C, H, W) floats from 0 to 1 => (3, H, W) uint8 each; a grey image has equal channels.

    An image with NaN or infinity becomes an error that ends with `remedy`: what a cast makes of
    NaN depends on the machine, and would pass for a dark pixel.
    """
    import torch

    finite = values.isfinite().flatten(1).all(1)
    sound = torch.where(finite[:, None, None, None], values, torch.zeros_like(values))
    pixels = (sound * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    return [
        image if is_finite else NonFiniteError(f"the pixels are NaN or infinite; {remedy}")
        for image, is_finite in zip(pixels, finite.tolist(), strict=True)
    ]
