"""The copy of a remote source that is packed: fetched once into the cache, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from evaluator.data.attachments import attached_inputs
from evaluator.data.surveys import Survey, stored, survey
from evaluator.data.turns import digest, one_at_a_time
from evaluator.durable import explained, flush_to_disk
from evaluator.errors import InputError, StorageError
from evaluator.remote import RemotePath, Stored

NUM_CONNECTIONS = 8
"""Files that are fetched at the same time."""
_PARTS = ".evaluator-parts-"
"""Begins the name of a folder with files that are on their way."""


def fetched(found: Survey, cache: Path) -> Path:
    """The local copy of a source: a file, or a folder. It is found again by address and versions.

    What JSON lines attach is fetched too. Many processes may ask at the same time: one fetches,
    the others wait; after an interruption the files that are there already are kept.
    """
    name = found.source.name if found.kind == "file" else ""
    path = _copy(found, cache) / name
    if path.suffix.lower() != ".jsonl":
        return path
    attached = [file.relative_to(path.parent).as_posix() for file in attached_inputs(path)]
    if not attached:
        return path
    whole = found._replace(files={**found.files, **stored(found.root, attached)})
    return _copy(whole, cache) / name


def fetched_file(source: RemotePath, cache: Path) -> Path:
    """The local copy of one file of any kind; InputError if there is none."""
    about = source.files().get("")
    if about is None:
        raise InputError(
            f"{source}: expected a file, got nothing there, or a folder; check the address"
        )
    found = Survey("file", source, source.parent, {source.name: about})
    return _copy(found, cache) / source.name


def fetched_place(source: Path | RemotePath, cache: Path) -> Path:
    """A raw source as a path: itself, or its copy. InputError for remote packs and tars."""
    if isinstance(source, Path):
        return source
    found = survey(source)
    if found.kind in ("pack", "tars"):
        raise InputError(
            f"{source}: expected prompts or images to pack, got a pack or tars; they need no"
            " packing: use them as the source"
        )
    return fetched(found, cache)


def _copy(found: Survey, cache: Path) -> Path:
    """The folder in the cache that holds the files of a source, each under its name."""
    key = digest([str(found.root), *found.marks()])[:32]
    final = cache / "remote" / key
    folder = final / found.root.name
    if not _is_whole(folder, found.files):
        with one_at_a_time(cache, key) as alone, explained("fetch into", final):
            if not _is_whole(folder, found.files):
                _fetch(found, final, resumable=alone)
    return folder


def _is_whole(folder: Path, files: Mapping[str, Stored]) -> bool:
    """Whether all files are there with their sizes: a cache may be cleaned in part."""
    try:
        return all((folder / name).stat().st_size == file.size for name, file in files.items())
    except OSError:
        return False


def _fetch(found: Survey, final: Path, *, resumable: bool) -> None:
    """Fill a folder aside with whole files, and rename it once it holds all of them."""
    aside = final.with_name(f"{final.name}.{'partial' if resumable else uuid.uuid4().hex}")
    if final.exists():
        if _is_whole(final / found.root.name, found.files):
            return  # another was first just now, where locks do not reach
        # Cleaned in part: what is left need not be fetched again.
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(final, aside)
    folder = aside / found.root.name
    fetch = _Fetch(found, folder, parts=aside / f"{_PARTS}{uuid.uuid4().hex}")
    try:
        fetch.parts.mkdir(parents=True)
        with ThreadPoolExecutor(NUM_CONNECTIONS, thread_name_prefix="fetch") as threads:
            try:
                for _ in threads.map(fetch.one, found.files):
                    pass
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
        _require_unchanged(found, aside)
        for parts in aside.glob(f"{_PARTS}*"):  # those of fetches that were killed, too
            shutil.rmtree(parts, ignore_errors=True)
        os.rename(aside, final)
        flush_to_disk(final.parent)
    except OSError:
        # Where locks do not reach other machines, one of them may have been first.
        if not _is_whole(final / found.root.name, found.files):
            raise
    finally:
        shutil.rmtree(fetch.parts if resumable else aside, ignore_errors=True)


def _require_unchanged(found: Survey, aside: Path) -> None:
    """InputError if a file changed meanwhile; then nothing that was fetched is kept."""
    try:
        found.require_unchanged("fetched")
    except InputError:
        shutil.rmtree(aside, ignore_errors=True)
        raise


class _Fetch:
    """Files of one source on their way into a folder."""

    def __init__(self, found: Survey, folder: Path, *, parts: Path) -> None:
        self.found, self.folder, self.parts = found, folder, parts
        self._tags_are_hashes = True

    def one(self, name: str) -> None:
        """Fetch a file, check it, and give it its name; skip one that is there already."""
        remote, expected, final = self.found.root / name, self.found.files[name], self.folder / name
        if final.is_file() and final.stat().st_size == expected.size:
            return
        part = self.parts / uuid.uuid4().hex
        remote.fetch(part)
        size = part.stat().st_size
        if size != expected.size:
            raise StorageError(
                f"{remote}: expected {expected.size} bytes, got {size}; it changed, or the"
                " connection broke: run the same command again"
            )
        self._check(part, remote, expected)
        flush_to_disk(part)  # its name will say that it is whole
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, final)

    def _check(self, part: Path, remote: RemotePath, expected: Stored) -> None:
        """StorageError unless the file has its checksum.

        An ETag that looks like one may be none (objects encrypted with a key of one's own): then
        a second download decides, once for the whole source.
        """
        if expected.md5 is None or not (expected.certain or self._tags_are_hashes):
            return
        if _md5(part) == expected.md5:
            return
        if not expected.certain:
            again = self.parts / uuid.uuid4().hex
            remote.fetch(again)
            if _md5(again) == _md5(part):
                self._tags_are_hashes = False
                return
        raise StorageError(
            f"{remote}: expected content with the checksum {expected.md5}, got other content; the"
            " connection changed it: run the same command again"
        )


def _md5(path: Path) -> str:
    """MD5 as stores have it: it tells a broken transfer, nothing about who made the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(
            file, lambda: hashlib.md5(usedforsecurity=False)
        ).hexdigest()  # fmt: skip
