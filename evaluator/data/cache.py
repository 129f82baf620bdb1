"""Opening any source: packs as they are, tars in place, everything else packed once in a cache."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evaluator.data.fetched import fetched, fetched_file
from evaluator.data.index import INDEX_NAME, INDEX_VERSION, INDEXED, rows_table, write_index
from evaluator.data.locate import TarSet, expand_source, find_tars
from evaluator.data.open_raw import open_raw
from evaluator.data.packing import PackOptions, publish, staged
from evaluator.data.packs import Pack, is_pack, open_pack
from evaluator.data.raw import RawSource
from evaluator.data.surveys import Survey, survey
from evaluator.data.tarsets import index_tars
from evaluator.data.turns import digest, one_at_a_time
from evaluator.durable import publish_directory
from evaluator.errors import InputError
from evaluator.remote import RemotePath

_SETTLED_SECONDS = 2.0
"""A file changed more recently might change again within the clock's granularity, unseen."""

_DEFAULTS = PackOptions()


def open_source(
    source: str | Path | RemotePath,
    *,
    cache: Path,
    limit: int | None = None,
    options: PackOptions = _DEFAULTS,
) -> Pack:
    """The pack of a source; the first `limit` samples of it, if given.

    A pack is opened, existing tars are indexed in place (the index goes to `cache`), and any
    other source is packed once into `cache`, found again by content and options. Many processes
    may open the same source at the same time: one packs, the others wait for it.

    Remote packs and tars are read in place, by ranges; any other remote source is fetched into
    `cache` first, once for each version of its files.
    """
    place = expand_source(source) if isinstance(source, str) else source
    if isinstance(options.captions, RemotePath):
        options = replace(options, captions=fetched_file(options.captions, cache))
    elif options.captions is not None:
        options = replace(options, captions=Path(os.path.abspath(options.captions)))
    if isinstance(place, RemotePath):
        pack = _open_remote(place, cache, options)
    else:
        pack = _open_local(Path(os.path.abspath(place)), cache, options)
    return pack if limit is None else pack.prefix(limit)


def _open_local(path: Path, cache: Path, options: PackOptions) -> Pack:
    if is_pack(path):
        _refuse_captions(path, options)
        pack = open_pack(path)
        pack.verify()
        return pack
    tars = find_tars(path)
    if tars:
        _refuse_captions(path, options)
    with one_at_a_time(cache, digest([str(path)])):
        return _indexed_here(tars, cache) if tars else _packed(path, cache, options)


def _open_remote(source: RemotePath, cache: Path, options: PackOptions) -> Pack:
    found = survey(source)
    if found.kind in ("pack", "tars"):
        _refuse_captions(source, options)
    if found.kind == "pack":
        return _remote_pack(found, cache)
    if found.kind == "tars":
        with one_at_a_time(cache, digest([str(source)])):
            return _indexed(
                found.root, {name: file.size for name, file in found.files.items()},
                found.marks(), cache, confirm=lambda: found.require_unchanged("indexed"),
            )  # fmt: skip
    path = fetched(found, cache)
    try:
        return _open_local(path, cache, options)
    except InputError as error:
        copy = str(path if found.kind == "folder" else path.parent)
        original = str(source if found.kind == "folder" else source.parent)
        raise InputError(str(error).replace(copy, original)) from error


def _remote_pack(found: Survey, cache: Path) -> Pack:
    """A pack in a remote store: its index is fetched, its tars stay where they are."""
    index = found._replace(kind="folder", files={INDEX_NAME: found.files[INDEX_NAME]})
    pack = open_pack(fetched(index, cache), root=found.root)
    for tar in pack.index.tars:
        if tar not in found.files:
            pack.require_tar(tar)  # says what is missing
        pack.require_size(tar, found.files[tar].size)
    return pack


def _refuse_captions(path: Path | RemotePath, options: PackOptions) -> None:
    """InputError when captions are given for samples that were packed with their own."""
    if options.captions is not None:
        raise InputError(
            f"{path}: expected a folder, .zip or .npz of images to give captions to, got tars,"
            " which carry their own; put a .txt or .json beside each image into the tars, or"
            " unpack them into a folder"
        )


def _packed(path: Path, cache: Path, options: PackOptions) -> Pack:
    """A raw source's pack in the cache, made if it is not there."""
    assert not isinstance(options.captions, RemotePath), "fetched by open_source"
    raw = open_raw(
        path,
        key_column=options.key_column,
        text_column=options.text_column,
        image_column=options.image_column,
        captions=options.captions,
    )
    before = _signature(raw)
    settings = json.dumps(_settings(options), sort_keys=True)
    suffix = path.suffix.lower() if path.is_file() else "folder"
    content = _content(raw, before, cache)
    output = cache / "packs" / digest([str(INDEX_VERSION), suffix, settings, content])[:32]

    def confirm() -> None:
        # Otherwise what was packed might be neither the old content nor the new.
        if _signature(raw) != before:
            raise InputError(f"{path}: changed while it was being packed; start again")

    if not is_pack(output):
        return publish(raw, output, options=options, confirm=confirm)
    pack = open_pack(output)
    pack.verify()
    return pack


def _settings(options: PackOptions) -> dict[str, Any]:
    """What the pack depends on besides content; of the captions' place only their kind."""
    settings = asdict(options)
    captions = settings.pop("captions")
    if captions is None:
        return settings
    return {**settings, "captions": captions.suffix.lower()}


def _indexed_here(found: TarSet, cache: Path) -> Pack:
    """The index of tars on this machine's file systems, by size and time of change."""
    stats = {tar: (found.root / tar).stat() for tar in found.tars}
    marks = [f"{tar}\x1f{stat.st_size}\x1f{stat.st_mtime_ns}" for tar, stat in stats.items()]
    sizes = {tar: stat.st_size for tar, stat in stats.items()}
    return _indexed(found.root, sizes, marks, cache)


def _indexed(
    root: Path | RemotePath,
    sizes: Mapping[str, int],
    marks: Sequence[str],
    cache: Path,
    *,
    confirm: Callable[[], None] = lambda: None,
) -> Pack:
    """The index of tars that exist, in the cache. Found by their place and `marks`."""
    name = digest([str(INDEX_VERSION), str(root), *marks])[:32]
    output = cache / "indexes" / name
    if not is_pack(output):
        rows = index_tars(root, tuple(sizes))
        confirm()
        with staged(output) as staging:
            write_index(staging, rows_table(rows), kind=INDEXED, tars=sizes)
            publish_directory(staging, output)
    return open_pack(output, root=root)


def _signature(raw: RawSource) -> str:
    """Names, sizes and times of change of all that the pack depends on: cheap to ask for."""
    entries = []
    for path in raw.inputs:
        try:
            stat = path.stat()
        except OSError as error:
            raise InputError(
                f"{path}: expected a readable file, got {error.strerror}; put it there"
            ) from error
        entries.append(f"{path}\x1f{stat.st_size}\x1f{stat.st_mtime_ns}")
    return digest([str(raw.path), *entries])


def _content(raw: RawSource, signature: str, cache: Path) -> str:
    """SHA-256 over names and bytes of the inputs; remembered under their signature."""
    memo = cache / "hashes" / signature
    with suppress(OSError):
        remembered = memo.read_text()
        if len(remembered) == 64:
            return remembered
    digest = hashlib.sha256()
    for path in raw.inputs:
        name = "" if path == raw.path else os.path.relpath(path, _base(raw.path))
        if path == raw.captions:
            name = "captions"
        digest.update(f"{name}\x1f{path.stat().st_size}\x1e".encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    content = digest.hexdigest()
    newest = max((path.stat().st_mtime for path in raw.inputs), default=0.0)
    if newest < time.time() - _SETTLED_SECONDS:
        _remember(memo, content)
    return content


def _base(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _remember(memo: Path, content: str) -> None:
    """Written aside and renamed, so that nobody reads half of it. Losing it costs only time."""
    with suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        aside = memo.with_name(f".{memo.name}.{os.getpid()}")
        aside.write_text(content)
        os.replace(aside, memo)
