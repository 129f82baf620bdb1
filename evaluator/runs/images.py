"""Kept images of a run, decoded with the limits that hold for any image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from evaluator.data import decode_image, parse_member, read_image_tar
from evaluator.errors import CorruptShardError, InputError, SampleError
from evaluator.store.committed import IMAGES, MEND
from evaluator.store.rundir import RunDirectory

if TYPE_CHECKING:
    from PIL.Image import Image


class SampleImage(NamedTuple):
    """One kept image, and whose it is."""

    key: str
    image_index: int
    image: Image
    """RGB."""


def keeps_images(run: RunDirectory) -> bool:
    """Whether the committed shards have their images."""
    committed = run.committed()
    return bool(committed) and (run.shard_path(committed[0]) / IMAGES).is_file()


def read_images(run: RunDirectory) -> Iterator[SampleImage]:
    """All kept images in the order of the plan.

    InputError where the run kept none, CorruptShardError where they are lost.
    """
    if not keeps_images(run):
        for index in run.committed()[:1]:
            run.files(index).require_never_there(IMAGES)
        raise InputError(
            f"{run.path}: expected kept images, got none. Run again into another directory with "
            "runtime.images: png."
        )
    for index in run.committed():
        path = run.shard_path(index) / IMAGES
        if not path.is_file():
            run.files(index).require_never_there(IMAGES)
            continue
        for name, content in read_image_tar(path):
            try:
                sample = parse_member(name)
                yield SampleImage(*sample, _decoded(content))
            except (ValueError, SampleError) as error:
                raise CorruptShardError(f"{path}: {error}. {MEND}", path.parent) from error


def read_image(run: RunDirectory, key: str, image_index: int) -> Image:
    """One kept image; InputError where there is no such sample, or no image of it."""
    if not keeps_images(run):
        next(read_images(run))
    keys, indices = run.plan_column("key"), run.plan_column("image_index")
    found = [
        place
        for place, planned in enumerate(keys.to_pylist())
        if planned == key and indices[place].as_py() == image_index
    ]
    if not found:
        raise InputError(
            f"{run.path}: expected a sample of the plan, got key '{key}' with image index "
            f"{image_index}. `run.plan` lists them."
        )
    shard = next(i for i in range(run.num_shards) if run.shard_starts[i + 1] > found[0])
    path = run.shard_path(shard) / IMAGES
    if path.is_file():
        for name, content in read_image_tar(path):
            if tuple(parse_member(name)) == (key, image_index):
                return _decoded(content)
    raise InputError(
        f"{run.path}: expected an image of '{key}' with image index {image_index}, got none: its "
        "shard is not there yet, or the sample has an error (`run.errors`)."
    )


def _decoded(content: bytes) -> Image:
    from PIL import Image

    pixels = decode_image(content)  # (3, H, W) uint8
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
