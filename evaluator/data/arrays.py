"""Images and class labels from an `.npz` archive, as guided-diffusion's batches hold them.

Nothing is unpickled, and only one image is in memory at a time, however large the archive is.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from evaluator.data.captions import read_caption_lines
from evaluator.data.keys import row_key
from evaluator.data.raw import MAX_MEMBER_BYTES, Place, RawPart, RawSample
from evaluator.errors import InputError
from evaluator.records import Prompt

if TYPE_CHECKING:
    import numpy as np

IMAGES = "arr_0"
"""Array with the images: (N, H, W, 3) uint8, RGB."""
LABELS = "arr_1"
"""Array with their classes, where there is one: (N,) integers."""
MOMENTS = ("mu", "sigma")
"""Arrays of a file that holds the moments of features instead of images."""

_READ_ANEW = "copy or write the file again"


class Header(NamedTuple):
    """What an array says about itself before its data."""

    shape: tuple[int, ...]
    dtype: np.dtype
    length: int
    """Bytes of data that follow."""


def read_arrays(path: Path, *, captions: Path | None) -> Iterator[RawSample]:
    """One sample for each image of `arr_0`, in order, as a PNG; `arr_1` gives the classes.

    Other arrays are left alone. `captions` is a text file with one line for each image. Raises
    InputError for anything that is no (N, H, W, 3) uint8 in C order, and for a file cut short.
    """
    with ExitStack() as stack:
        archive = stack.enter_context(_opened(path))
        _require_images(archive, path=path)
        file = stack.enter_context(_array(archive, IMAGES, path=path))
        header = _header(file, archive.getinfo(f"{IMAGES}.npy"), path=path, name=IMAGES)
        count, height, width = _image_shape(header, path=path)
        labels = _labels(archive, count, path=path)
        texts = None if captions is None else read_caption_lines(captions, count, source=path)
        for number in range(1, count + 1):
            place = Place(path.name, "image", number)
            pixels = _read(file, height * width * 3, place=place)
            prompt = Prompt(
                key=row_key(number),
                text=None if texts is None else texts[number - 1],
                class_label=None if labels is None else labels[number - 1],
            )
            original = f"{path.name}:{number}"
            part = RawPart("png", original, partial(encode_pixels, pixels, width, height))
            yield RawSample(prompt, place, original, (part,))
        _read(file, 0, place=Place(path.name, "image", count))  # its checksum


def encode_pixels(pixels: bytes, width: int, height: int) -> bytes:
    """Rows of RGB, 8 bits a channel, as PNG: the same pixels give the same bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    # Level 6 would save a tenth of the space and take 1.6 times as long.
    Image.frombytes("RGB", (width, height), pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def holds_moments(path: Path) -> bool:
    """Whether a file is an `.npz` with mu and sigma, and without images."""
    names = _names_in(path)
    return IMAGES not in names and set(MOMENTS) <= names


def holds_both(path: Path) -> bool:
    """Whether a file is an `.npz` of images with mu and sigma beside them."""
    return {IMAGES, *MOMENTS} <= _names_in(path)


def _names_in(path: Path) -> set[str]:
    if path.suffix.lower() != ".npz" or not path.is_file():
        return set()
    with _opened(path) as archive:
        return _array_names(archive)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"{path}: expected an .npz archive as numpy.savez writes it, got a file that is cut"
            f" short or something else ({error}); {_READ_ANEW}"
        ) from error
    with archive:
        yield archive


def _array_names(archive: zipfile.ZipFile) -> set[str]:
    return {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}


def _require_images(archive: zipfile.ZipFile, *, path: Path) -> None:
    """InputError unless there is an array of images, exactly one."""
    names = _array_names(archive)
    if IMAGES not in names and set(MOMENTS) <= names:
        raise InputError(
            f"{path}: expected images (an array {IMAGES!r}), got the moments of features"
            f" ({', '.join(sorted(names))}); they can stand for real images only:"
            f" --against {path.name}, or references: {{real: {{moments: {path.name}}}}}"
        )
    if IMAGES not in names:
        raise InputError(
            f"{path}: expected an array {IMAGES!r} with the images, got"
            f" {sorted(names) or 'no arrays'}; write it with numpy.savez(file, images), where"
            " images are (N, H, W, 3) uint8 (moments of real images are 'mu' and 'sigma')"
        )
    members = archive.namelist()
    for name in (IMAGES, LABELS):
        if members.count(f"{name}.npy") > 1:
            raise InputError(f"{path}: expected {name!r} once, got it twice; {_READ_ANEW}")


@contextmanager
def _array(archive: zipfile.ZipFile, name: str, *, path: Path) -> Iterator[IO[bytes]]:
    try:
        file = archive.open(f"{name}.npy")
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{path}: expected a readable {name!r}, got {error}; {_READ_ANEW}") from (
            error
        )
    with file:
        yield file


def _header(file: IO[bytes], entry: zipfile.ZipInfo, *, path: Path, name: str) -> Header:
    """The header of an array; InputError unless exactly its data follow, in C order."""
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        version = npy.read_magic(file)
        if version not in readers:
            raise ValueError(f"version {version[0]}.{version[1]} of the format")
        shape, in_fortran_order, dtype = readers[version](file)
    except Exception as error:  # besides ValueError whatever a damaged archive leads to
        raise InputError(
            f"{path}: expected an array {name!r} as numpy writes it, got {error}; {_READ_ANEW}"
        ) from error
    if dtype.hasobject:
        raise InputError(
            f"{path}: expected numbers in {name!r}, got pickled Python objects, which are not"
            f" read because they may run code; save {_plainly(name)}"
        )
    if in_fortran_order and len(shape) > 1:
        raise InputError(
            f"{path}: expected {name!r} in C order, got Fortran order; save"
            " numpy.ascontiguousarray(images)"
        )
    length = math.prod(shape) * dtype.itemsize
    there = entry.file_size - file.tell()
    if there != length:
        raise InputError(
            f"{path}: expected {length} bytes for the {shape} {dtype} of {name!r}, got {there};"
            f" {_READ_ANEW}"
        )
    return Header(tuple(shape), dtype, length)


def _plainly(name: str) -> str:
    return "an (N, H, W, 3) uint8 array" if name == IMAGES else "an (N,) int64 array"


def _image_shape(header: Header, *, path: Path) -> tuple[int, int, int]:
    """(N, H, W); InputError unless the array holds 8-bit RGB images, channels last."""
    shape, dtype = header.shape, header.dtype
    got = f"{path}: expected images (N, H, W, 3) uint8 in {IMAGES!r}, got {shape} {dtype}"
    if dtype != "uint8":
        scale = "scale them to 0…255, round" if dtype.kind == "f" else "bring them to 0…255"
        raise InputError(f"{got}; {scale} and save them as uint8")
    if len(shape) == 4 and shape[3] != 3 and shape[1] == 3:
        raise InputError(f"{got}; save images.transpose(0, 2, 3, 1)")
    if len(shape) == 3 or (len(shape) == 4 and shape[3] == 1):
        raise InputError(f"{got}; repeat the grey values three times along a last axis")
    if len(shape) != 4 or shape[3] != 3 or 0 in shape[1:]:
        raise InputError(f"{got}; save them in that shape")
    count, height, width, _ = shape
    if height * width * 3 > MAX_MEMBER_BYTES:
        raise InputError(f"{got}; an image may have at most {MAX_MEMBER_BYTES} bytes: shrink them")
    return count, height, width


def _labels(archive: zipfile.ZipFile, count: int, *, path: Path) -> list[int] | None:
    """The class of each image; None where the file has no labels."""
    import numpy as np

    if LABELS not in _array_names(archive):
        return None
    with _array(archive, LABELS, path=path) as file:
        entry = archive.getinfo(f"{LABELS}.npy")
        header = _header(file, entry, path=path, name=LABELS)
        if header.dtype.kind not in "iu" or len(header.shape) != 1:
            raise InputError(
                f"{path}: expected class labels (N,) of integers in {LABELS!r}, got"
                f" {header.shape} {header.dtype}; save them so, or leave {LABELS!r} out"
            )
        if header.shape != (count,):
            raise InputError(
                f"{path}: expected a label for each of {count} images in {LABELS!r}, got"
                f" {header.shape[0]}; save as many, or leave {LABELS!r} out"
            )
        data = _read(file, header.length, place=Place(path.name, "array", 1))
    labels = np.frombuffer(data, header.dtype)
    if (negative := np.flatnonzero(labels < 0)).size:
        first = int(negative[0])
        raise InputError(
            f"{Place(path.name, 'image', first + 1)}: expected a class index (0, 1, …), got"
            f" {labels[first]}; correct it, or leave {LABELS!r} out"
        )
    return [int(label) for label in labels]


def _read(file: IO[bytes], size: int, *, place: Place) -> bytes:
    """The next `size` bytes; InputError where they are damaged or missing."""
    try:
        data = file.read(size) if size else file.read()
    except Exception as error:  # zlib, bz2 and lzma each raise an error of their own
        raise InputError(f"{place}: damaged ({error}); {_READ_ANEW}") from error
    if len(data) != size:
        raise InputError(
            f"{place}: expected {size} bytes, got {len(data)}: the archive is cut short;"
            f" {_READ_ANEW}"
        )
    return data
