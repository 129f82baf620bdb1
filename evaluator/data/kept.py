"""Kept images: a webdataset tar in a committed shard, one member for each generated image."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from evaluator.data.tars import BrokenTarError, split_name, walk_tar
from evaluator.data.webdata import open_tar_writer
from evaluator.errors import CorruptShardError, StorageError
from evaluator.records import is_safe_key

_MEND = "`evaluator status RUN --verify` sets its shard apart, and the same `run` makes it anew"
_INDEXED = re.compile(r"(.+)__(0\d{3}|[1-9]\d{3,})\Z")


class MemberImage(NamedTuple):
    """Which image a member is."""

    key: str
    image_index: int


class KeptImage(NamedTuple):
    """One member of an image tar."""

    key: str
    """The member's name without extension, as given to `write_image_tar`."""
    data: bytes


def sample_name(key: str, image_index: int) -> str:
    """The member's name, without extension, of image `image_index` of prompt `key`."""
    assert is_safe_key(key), key
    assert image_index >= 0, image_index
    return f"{key}__{image_index:04d}"


def parse_member(name: str) -> MemberImage:
    """The inverse of `sample_name`, also for keys that hold `__`; ValueError otherwise."""
    match = _INDEXED.match(name)
    if match is None or not is_safe_key(match[1]):
        raise ValueError(f"expected a name such as 'key__0000', got {name!r}")
    return MemberImage(match[1], int(match[2]))


def write_image_tar(path: Path, items: Iterable[tuple[str, str, bytes]]) -> int:
    """Write (key, extension, bytes) as members `key.extension`, in order. Returns their number.

    The same items give the same bytes. `path` must be new; it is on the disk when this returns.
    Keys are names such as those of `sample_name`: safe, and each only once.
    """
    written: set[str] = set()
    try:
        with path.open("xb") as file:
            with open_tar_writer(file) as writer:
                for key, extension, data in items:
                    assert not set(key) & set("./"), f"{key!r} would not be read back"
                    assert key not in written, f"{key!r} was written already"
                    writer.write({"__key__": key, extension: data})
                    written.add(key)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(
            f"{path}: images could not be written ({error.strerror or error}); free space, or"
            " keep none"
        ) from error
    return len(written)


def read_image_tar(path: Path) -> Iterator[KeptImage]:
    """Key and bytes of each image, in the order in which they were written.

    Raises CorruptShardError if the tar is missing, cut short or damaged in its structure (the
    bytes of the images themselves are covered by the shard's checksum).
    """
    try:
        with path.open("rb") as file:
            for member in walk_tar(path):
                file.seek(member.offset)
                yield KeptImage(split_name(member.name).base, file.read(member.size))
    except BrokenTarError as fault:
        raise CorruptShardError(f"{path}: {fault}; {_MEND}") from fault
    except OSError as error:
        raise CorruptShardError(
            f"{path}: expected a tar of images, got {error.strerror}; {_MEND}"
        ) from error
