"""A page in a folder with data of its own: written aside and moved in, and the data stay."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from evaluator.durable import explained
from evaluator.errors import RunDirectoryError
from evaluator.report.replaced import PAGE

PICTURES = "pictures"
DRAWINGS = "drawings"
OWN = (PICTURES, DRAWINGS)
"""Folders beside the page. They are the page's: an older one's are removed with it."""

_ASIDE = ".page."


@contextmanager
def page_folder(folder: Path, *, record: str, generator: str) -> Iterator[Path]:
    """An empty folder to write the page into; its content moves to `folder` when that is done.

    `record` is the file that tells such a folder from others, and `generator` what its page says
    of itself. The page itself is moved last, and in one step: until then an older one stays. All
    other files of `folder` are data, and are not touched. Raises RunDirectoryError where something
    else is there, before anything is written.
    """
    final = folder.resolve()
    require_ours(final, record=record, generator=generator)
    is_new = not final.exists()
    aside = final / f"{_ASIDE}{uuid.uuid4().hex}"
    try:
        with explained("write", final):
            aside.mkdir(parents=True)
            yield aside
            with _one_at_a_time(final):
                _move_in(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it is not empty: the page is there
                final.rmdir()


def require_ours(final: Path, *, record: str, generator: str) -> None:
    """Refuse a folder that such a page would not stand in: what is in it could be lost."""
    if not final.exists():
        return
    names, others, page_is_ours = set(), set(), True
    if final.is_dir():
        with _one_at_a_time(final):  # another's page may be half moved in
            entries = [entry for entry in os.scandir(final) if not entry.name.startswith(_ASIDE)]
            names = {entry.name for entry in entries}
            others = {entry.name for entry in entries if entry.is_dir()} - set(OWN)
            page_is_ours = PAGE not in names or _made_by(final / PAGE, generator)
        if not names or (not others and page_is_ours and names & {record, PAGE}):
            return
    strange = sorted(others or (names - {record} if page_is_ours else {PAGE}))
    found = "a file" if not final.is_dir() else f"other files ({', '.join(strange[:3])})"
    raise RunDirectoryError(
        f"{final}: expected a new folder, an empty one or one that `{generator}` wrote, got "
        f"{found}, among which a page would be lost. Choose another --output."
    )


def _made_by(page: Path, generator: str) -> bool:
    try:
        with page.open("rb") as file:
            return f'content="{generator}"'.encode() in file.read(4096)
    except OSError:
        return False


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Pages that are done at once move in one after the other: the last one stays, with its own."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _move_in(aside: Path, final: Path) -> None:
    """Pictures and drawings first, then the page that shows them."""
    for name in OWN:
        with suppress(FileNotFoundError):
            os.rename(final / name, aside / f"older-{name}")
        with suppress(FileNotFoundError):
            os.rename(aside / name, final / name)
    os.replace(aside / PAGE, final / PAGE)
