"""Opening any source: packs as they are, tars in place, everything else packed once in a cache."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evaluator.data.index import INDEX_VERSION, INDEXED, rows_table, write_index
from evaluator.data.locate import TarSet, expand_source, find_tars
from evaluator.data.open_raw import open_raw
from evaluator.data.packing import PackOptions, publish, staged
from evaluator.data.packs import Pack, is_pack, open_pack
from evaluator.data.raw import RawSource
from evaluator.data.tarsets import index_tars
from evaluator.durable import publish_directory
from evaluator.errors import InputError, StorageError

_SETTLED_SECONDS = 2.0
"""A file changed more recently might change again within the clock's granularity, unseen."""

_DEFAULTS = PackOptions()


def open_source(
    source: str | Path,
    *,
    cache: Path,
    limit: int | None = None,
    options: PackOptions = _DEFAULTS,
) -> Pack:
    """The pack of a source; the first `limit` samples of it, if given.

    A pack is opened, existing tars are indexed in place (the index goes to `cache`), and any
    other source is packed once into `cache`, found again by content and options. Many processes
    may open the same source at the same time: one packs, the others wait for it.
    """
    path = expand_source(source) if isinstance(source, str) else source
    path = Path(os.path.abspath(path))
    if options.captions is not None:
        options = replace(options, captions=Path(os.path.abspath(options.captions)))
    if is_pack(path):
        _refuse_captions(path, options)
        pack = open_pack(path)
        pack.verify()
    else:
        tars = find_tars(path)
        if tars:
            _refuse_captions(path, options)
        with _locked(cache, _digest([str(path)])):
            pack = _indexed(tars, cache) if tars else _packed(path, cache, options)
    return pack if limit is None else pack.prefix(limit)


def _refuse_captions(path: Path, options: PackOptions) -> None:
    """InputError when captions are given for samples that were packed with their own."""
    if options.captions is not None:
        raise InputError(
            f"{path}: expected a folder, .zip or .npz of images to give captions to, got tars,"
            " which carry their own; put a .txt or .json beside each image into the tars, or"
            " unpack them into a folder"
        )


def _packed(path: Path, cache: Path, options: PackOptions) -> Pack:
    """A raw source's pack in the cache, made if it is not there."""
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
    output = cache / "packs" / _digest([str(INDEX_VERSION), suffix, settings, content])[:32]

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
    return settings if captions is None else {**settings, "captions": captions.suffix.lower()}


def _indexed(found: TarSet, cache: Path) -> Pack:
    """The index of tars that exist, in the cache. Found by place, size and time of change."""
    stats = [(found.root / tar).stat() for tar in found.tars]
    described = [
        f"{tar}\x1f{stat.st_size}\x1f{stat.st_mtime_ns}"
        for tar, stat in zip(found.tars, stats, strict=True)
    ]
    name = _digest([str(INDEX_VERSION), str(found.root), *described])[:32]
    output = cache / "indexes" / name
    if not is_pack(output):
        rows = index_tars(found.root, found.tars)
        sizes = {tar: stat.st_size for tar, stat in zip(found.tars, stats, strict=True)}
        with staged(output) as staging:
            write_index(staging, rows_table(rows), kind=INDEXED, tars=sizes)
            publish_directory(staging, output)
    return open_pack(output, root=found.root)


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
    return _digest([str(raw.path), *entries])


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


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\x1e".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def _locked(cache: Path, name: str) -> Iterator[None]:
    """Hold a lock that dies with the process. It saves work only: renames decide who was first."""
    path = cache / "locks" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise StorageError(
            f"{cache}: expected a writable cache, got {error.strerror}; name another place"
        ) from error
    with file:
        # Some network file systems have no locks.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
