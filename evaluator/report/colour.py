"""A colour map for heat: lightness rises evenly in OKLab from dark blue over red to pale yellow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_STOPS = np.array(
    [(9, 0, 40), (39, 1, 69), (76, 2, 89), (119, 3, 96), (163, 5, 92), (203, 35, 74),
     (231, 78, 49), (247, 123, 26), (251, 168, 57), (249, 210, 117), (249, 246, 184)],
    dtype=np.float64,
)  # fmt: skip
"""OKLCH with L from 0.14 to 0.96 and hue from 285° over 0° to 105°, chroma as sRGB allows."""


def heat_colours(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Values in [0, 1], any shape → (…, 3) uint8; what is not a number is mid-grey."""
    known = np.isfinite(values)
    place = np.clip(np.where(known, values, 0.0), 0.0, 1.0) * (len(_STOPS) - 1)
    colours = np.stack(
        [np.interp(place, np.arange(len(_STOPS)), _STOPS[:, c]) for c in range(3)], axis=-1
    )
    colours[~known] = 128
    rounded: NDArray[np.uint8] = np.rint(colours).astype(np.uint8)
    return rounded


def heat_hex(value: float) -> str:
    """One value in [0, 1] as `#rrggbb`."""
    red, green, blue = heat_colours(np.array(value, dtype=np.float64)).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"
