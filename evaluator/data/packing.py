"""Packing: any raw source into webdataset tars and an index, published in one step."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from evaluator.data.fetched import fetched_file, fetched_place
from evaluator.data.index import PACKED, rows_table, write_index
from evaluator.data.locate import expand_source, find_tars
from evaluator.data.open_raw import open_raw
from evaluator.data.packs import Pack, is_pack, open_pack
from evaluator.data.raw import RawSample, RawSource, checked
from evaluator.data.tarsets import index_packed_tar
from evaluator.data.webdata import open_tar_writer
from evaluator.durable import publish_directory
from evaluator.errors import InputError, StorageError
from evaluator.locations import cache_folder, require_mounted
from evaluator.remote import RemotePath

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class PackOptions:
    """How a source is read and cut into tars."""

    samples_per_tar: int = 1000
    """At most so many samples in a tar."""
    bytes_per_tar: int = 256 * 1024 * 1024
    """A tar is closed once it holds so many bytes."""
    key_column: str | None = None
    """Column with the keys; None looks for `key` or `id`; an empty string numbers the rows."""
    text_column: str | None = None
    """Column with the prompts; None looks for `text`, `prompt`, `caption`."""
    image_column: str | None = None
    """Parquet column with the images; None looks for `image` or the only binary column."""
    captions: Path | RemotePath | None = None
    """File with the captions of images in a folder, zip or `.npz`; None takes their own."""

    def __post_init__(self) -> None:
        for name in ("samples_per_tar", "bytes_per_tar"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name}: expected at least 1, got {getattr(self, name)}; leave it out for"
                    " the default"
                )


_DEFAULTS = PackOptions()


def pack(
    source: str | Path | RemotePath,
    output: Path,
    *,
    options: PackOptions = _DEFAULTS,
    cache: Path | None = None,
) -> Pack:
    """Pack prompts or images into `output`; the same source gives the same bytes.

    What is remote is fetched into `cache` (None: the user's) first.

    Written beside `output` and renamed to it. If another process was first, its pack is kept
    and returned, provided that it holds the same; otherwise InputError.
    """
    require_mounted(output, what="the pack", instead="pack here, then copy the folder there")
    cache = cache_folder() / "packs" if cache is None else cache
    place = expand_source(source) if isinstance(source, str) else source
    path = fetched_place(place, cache)
    captions = options.captions
    if isinstance(captions, RemotePath):
        captions = fetched_file(captions, cache)
    if is_pack(path) or find_tars(path):
        raise InputError(
            f"{path}: expected prompts or images to pack, got a pack or tars; they need no"
            " packing: use them as the source"
        )
    raw = open_raw(
        path,
        key_column=options.key_column,
        text_column=options.text_column,
        image_column=options.image_column,
        captions=captions,
    )
    return publish(raw, output, options=options)


def publish(
    raw: RawSource,
    output: Path,
    *,
    options: PackOptions,
    confirm: Callable[[], None] = lambda: None,
) -> Pack:
    """`pack` for a source that is already open. `confirm` may still object once it is written."""
    if output.exists() and not is_pack(output) and (output.is_file() or any(output.iterdir())):
        raise InputError(
            f"{output}: expected an empty place for the pack, got other files; name another"
        )
    with staged(output) as staging:
        write_pack(raw, staging, options=options)
        ours = open_pack(staging)
        confirm()
        if not publish_directory(staging, output):
            there = open_pack(output)
            if there.fingerprint != ours.fingerprint:
                raise InputError(
                    f"{output}: expected a pack of {raw.path}, got one with other content;"
                    " name another place, or remove it first"
                )
    return open_pack(output)


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A new folder beside `output`, gone afterwards unless it was moved.

    Failures of the file system leave as StorageError.
    """
    staging = output.parent / f".{output.name}.{uuid.uuid4().hex}"
    try:
        staging.mkdir(parents=True)
        yield staging
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{error.filename or output}: could not be written ({error.strerror or error});"
            " free space or name another place"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_pack(raw: RawSource, folder: Path, *, options: PackOptions) -> None:
    """Write tars and index into an empty folder."""
    import pyarrow as pa

    samples = checked(raw.samples(), source=raw.path)
    tables: list[pa.Table] = []
    sizes: dict[str, int] = {}
    waiting = next(samples, None)
    while waiting is not None:
        name = f"{len(sizes):05d}.tar"
        with (folder / name).open("xb") as file:
            originals, waiting = _fill(file, waiting, samples, options=options)
            file.flush()
            os.fsync(file.fileno())
        sizes[name] = (folder / name).stat().st_size
        # The index says what is on the disk, not what was meant to be there.
        tables.append(rows_table(index_packed_tar(folder, name, originals=originals)))
    write_index(folder, pa.concat_tables(tables), kind=PACKED, tars=sizes)


def _fill(
    file: IO[bytes], first: RawSample, rest: Iterator[RawSample], *, options: PackOptions
) -> tuple[dict[str, str], RawSample | None]:
    """Write one tar. Returns its members' original names, and the sample that comes next."""
    originals: dict[str, str] = {}
    num_samples = num_bytes = 0
    sample: RawSample | None = first
    with open_tar_writer(file) as writer:
        while sample is not None:
            key = sample.prompt.key
            members = {"json": sample.prompt.to_json().encode()}
            originals[f"{key}.json"] = sample.original
            for part in sample.parts:
                members[part.part] = part.load()
                originals[f"{key}.{part.part}"] = part.original
            num_bytes += writer.write({"__key__": key, **members})
            num_samples += 1
            sample = next(rest, None)
            if num_samples >= options.samples_per_tar or num_bytes >= options.bytes_per_tar:
                break
    return originals, sample
