"""A report's folder is replaced as a whole: nobody meets half of one, and files of others stay."""

from __future__ import annotations

import errno
import html
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from evaluator.durable import explained
from evaluator.errors import RunDirectoryError, StorageError
from evaluator.report.frame import GENERATOR

PAGE = "index.html"

_ATTEMPTS = 100
_HEAD = 2**18
"""Bytes of a page in which its list of files stands."""

_LISTED = re.compile(rb'<meta name="evaluator-files" content="([^"]*)">')
_BEFORE = '<meta name="referrer"'
_NUMBERED = re.compile(r"(thumbs|images|maps|heat|nearest)/\d{2,}(-\d+)?\.(webp|png)\Z")
"""Pictures of samples, which are too many for a list."""


@contextmanager
def replaced(output: Path) -> Iterator[Path]:
    """An empty folder to write a report into, which takes the place of `output` when that is done.

    An older report there goes; files in it that it does not list as its own are kept. Of two that
    are written at once, the one that is done last stays, whole. Raises RunDirectoryError where
    something else is there, before anything is written.
    """
    final = output.resolve()
    require_replaceable(final)
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex}.aside")
    try:
        with explained("write", final):
            aside.mkdir(parents=True)
            yield aside
            _list_files(aside)
            swap(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def require_replaceable(final: Path) -> None:
    """Refuse a folder that holds something other than a report: it would be removed."""
    for _ in range(3):  # another report may take its place just now
        if not os.path.lexists(final) or _is_report(final):
            return
        with suppress(FileNotFoundError):
            if final.is_dir() and not any(final.iterdir()):
                return
    raise RunDirectoryError(
        f"{final}: expected a new folder, an empty one or an older report, got something else, "
        "which writing a report would replace. Choose another --output."
    )


def _is_report(folder: Path) -> bool:
    return f'content="{GENERATOR}"'.encode() in _head(folder)[:4096]


def _head(folder: Path) -> bytes:
    try:
        with (folder / PAGE).open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def _list_files(folder: Path) -> None:
    """Write the names of the report's files into its page: by them it is told what is its own."""
    names = sorted(name for name in _files(folder) if not _NUMBERED.match(name))
    listed = html.escape(json.dumps(names, ensure_ascii=False))
    page = (folder / PAGE).read_text(encoding="utf-8")
    line = f'<meta name="evaluator-files" content="{listed}">\n'
    page = page.replace(_BEFORE, line + _BEFORE, 1)
    (folder / PAGE).write_text(page, encoding="utf-8")


def _files(folder: Path) -> Iterator[str]:
    """Names of files and links under `folder`, relative to it; links are not followed."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in (*files, *links):
            yield Path(place, name).relative_to(folder).as_posix()


def foreign(folder: Path) -> list[str]:
    """Files in a report's folder that it did not write; none where its page does not list any."""
    match = _LISTED.search(_head(folder))
    if match is None:
        return []
    try:
        listed = json.loads(html.unescape(match[1].decode()))
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list):
        return []
    return sorted(n for n in _files(folder) if n not in listed and not _NUMBERED.match(n))


def swap(aside: Path, final: Path) -> None:
    """Put the folder `aside` at `final`; the older report there is removed afterwards."""
    older: list[Path] = []
    try:
        for attempt in range(_ATTEMPTS):
            old = aside.with_suffix(f".{attempt}.old")
            with suppress(FileNotFoundError):  # the first report of this run
                os.rename(final, old)
                older.append(old)
            try:
                os.rename(aside, final)
                break
            except OSError as error:
                came_between = error.errno in (errno.ENOTEMPTY, errno.EEXIST)
                if came_between and attempt + 1 < _ATTEMPTS:
                    continue
                if older and not final.exists():
                    os.rename(older.pop(), final)
                raise
    finally:
        for old in older:
            _carry(old, final)
            shutil.rmtree(old, ignore_errors=True)


def _carry(old: Path, final: Path) -> None:
    """Move what the older report did not write into the newer; StorageError says where it stays."""
    for name in foreign(old):
        for attempt in range(_ATTEMPTS):
            target = _place_for(final, name)
            try:
                target.parent.mkdir(exist_ok=True, parents=final.exists())
                os.rename(old / name, target)
                break
            except OSError as error:
                # Not there: another report takes the place of this one just now.
                if not isinstance(error, FileNotFoundError) or attempt + 1 == _ATTEMPTS:
                    raise StorageError(
                        f"{final}: the report is written, but files that stood in the older one "
                        f"could not be moved into it ({error.strerror or error}): they lie in "
                        f"{old}. Move them from there."
                    ) from error


def _place_for(final: Path, name: str) -> Path:
    """Where somebody's file goes; where its name or a folder's is taken, beside what has it."""
    place, parts = final, Path(name).parts
    for left, part in zip(reversed(range(len(parts))), parts, strict=True):
        place, number = place / part, 0
        while os.path.lexists(place) and (left == 0 or not place.is_dir()):
            number += 1
            place = place.with_name(f"{part}.kept{number}")
    return place
