"""The data of the digits world: real handwritten digits, tinted and captioned.

The images are scikit-learn's 1,797 digits (Alpaydin and Kaynak 1998), enlarged from 8x8 to
32x32. A tint is a pair of colours, one for the stroke and one for the ground; which pair an
image gets depends on its index alone. Red and blue serve as both, so that "a red seven on a
blue background" and "a blue seven on a red background" differ in the order of words only.

scikit-learn is needed to make the data, not to use the Parquet that is shipped.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Split = Literal["train", "test"]

SIZE = 32
"""Height and width of an image, in pixels."""
TEST_SHARE = 0.2
"""Share of each digit's images that is held out."""
TEST_PARQUET = Path(__file__).parent / "data" / "test.parquet"
"""The held-out split, as shipped."""

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = ("red", "green", "blue", "yellow", "cyan", "white")
"""Colours of the stroke, in the order of the classifier's outputs."""
BACKGROUNDS = ("black", "grey", "red", "blue")
"""Colours of the ground, in the order of the classifier's outputs."""
RGB = {
    "red": (220, 30, 30),
    "green": (30, 200, 60),
    "blue": (40, 70, 240),
    "yellow": (245, 215, 30),
    "cyan": (30, 215, 230),
    "white": (250, 250, 250),
    "black": (8, 8, 8),
    "grey": (100, 100, 100),
}
"""Red, green and blue from 0 to 255, of every colour word."""
PAIRS = tuple((c, b) for c in COLOURS for b in BACKGROUNDS if c != b)
"""Every tint: (colour, background), never twice the same colour."""

_SALT = "evaluator.demo.digits"
_MAX_INK = 16.0  # scikit-learn counts ink from 0 to 16


@dataclass(frozen=True, slots=True)
class DigitSet:
    """One split, in the order of the source's indices."""

    keys: tuple[str, ...]
    """`digit-0042`: the index in scikit-learn's data set."""
    images: np.ndarray
    """(N, 3, 32, 32) uint8, RGB."""
    ink: np.ndarray
    """(N, 32, 32) float32 from 0 (ground) to 1 (stroke): the images before the tint."""
    captions: tuple[str, ...]
    digits: tuple[int, ...]
    """Which digit, 0 to 9."""
    colours: tuple[str, ...]
    backgrounds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)


def caption(digit: int, colour: str, background: str) -> str:
    """`a red seven on a blue background`."""
    return f"a {colour} {WORDS[digit]} on a {background} background"


def all_captions() -> tuple[str, ...]:
    """Every caption of this world: digits vary slowest, then tints in the order of `PAIRS`."""
    return tuple(caption(digit, *pair) for digit in range(len(WORDS)) for pair in PAIRS)


def tint(ink: np.ndarray, colour: str, background: str) -> np.ndarray:
    """Colour an image: (..., 32, 32) float32 ink => (..., 3, 32, 32) uint8."""
    stroke = np.asarray(RGB[colour], dtype=np.float32)[:, None, None]
    ground = np.asarray(RGB[background], dtype=np.float32)[:, None, None]
    blended = ground + (stroke - ground) * ink[..., None, :, :]
    tinted: np.ndarray = np.rint(blended).astype(np.uint8)
    return tinted


def load(split: Split) -> DigitSet:
    """The images and captions of one split; needs scikit-learn."""
    pixels, labels = _source()
    held_out = _held_out(labels)
    chosen = [i for i in range(len(labels)) if (i in held_out) == (split == "test")]
    ink = np.stack([_enlarge(pixels[i]) for i in chosen])
    tints = [PAIRS[_draw("tint", i) % len(PAIRS)] for i in chosen]
    digits = tuple(int(labels[i]) for i in chosen)
    return DigitSet(
        keys=tuple(f"digit-{i:04d}" for i in chosen),
        images=np.stack([tint(image, *pair) for image, pair in zip(ink, tints, strict=True)]),
        ink=ink,
        captions=tuple(caption(d, *pair) for d, pair in zip(digits, tints, strict=True)),
        digits=digits,
        colours=tuple(colour for colour, _ in tints),
        backgrounds=tuple(background for _, background in tints),
    )


def write_parquet(path: Path, split: Split) -> None:
    """Write one split as a table that `pack` reads; equal bytes from equal library versions."""
    digits = load(split)
    table = pa.table(
        {
            "key": pa.array(digits.keys, pa.string()),
            "image": pa.array([_png(image) for image in digits.images], pa.binary()),
            "text": pa.array(digits.captions, pa.string()),
            "digit": pa.array([WORDS[digit] for digit in digits.digits], pa.string()),
            "colour": pa.array(digits.colours, pa.string()),
            "background": pa.array(digits.backgrounds, pa.string()),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # PNG is compressed already; the dictionary helps the words only.
    words = ["digit", "colour", "background"]
    pq.write_table(table, path, compression="zstd", use_dictionary=words)


def _source() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 8, 8) float64 ink from 0 to 16, and (1797,) int64 labels."""
    from sklearn.datasets import load_digits

    source = load_digits()
    return source.images, source.target


def _draw(purpose: str, index: int) -> int:
    """64 reproducible bits for an image."""
    text = f"{_SALT}\x1f{purpose}\x1f{index}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _held_out(labels: np.ndarray) -> frozenset[int]:
    """Indices of the test split: of each digit, the fifth with the smallest hash."""
    chosen: list[int] = []
    for digit in range(len(WORDS)):
        indices = [int(i) for i in np.flatnonzero(labels == digit)]
        indices.sort(key=lambda index: _draw("split", index))
        chosen += indices[: round(TEST_SHARE * len(indices))]
    return frozenset(chosen)


def _enlarge(pixels: np.ndarray) -> np.ndarray:
    """(8, 8) ink from 0 to 16 => (32, 32) float32 from 0 to 1; bicubic overshoot is clipped."""
    image = Image.fromarray((pixels / _MAX_INK).astype(np.float32))
    enlarged = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    ink: np.ndarray = np.clip(np.asarray(enlarged), 0.0, 1.0)
    return ink


def _png(image: np.ndarray) -> bytes:
    """(3, 32, 32) uint8 => PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
