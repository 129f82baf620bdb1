"""A page in a folder with data of its own: written aside and swapped in, and the data stay."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from evaluator.durable import explained
from evaluator.errors import RunDirectoryError
from evaluator.report.write import PAGE, swap


@contextmanager
def page_folder(
    folder: Path, *, record: str, generator: str, own: Collection[str] = ()
) -> Iterator[Path]:
    """An empty folder to write the page into; it takes the place of `folder` when that is done.

    `record` is the file that tells such a folder from others, `generator` what its page says of
    itself, `own` the folders beside the page. All other files of `folder` are data, and move
    along. Raises RunDirectoryError where something else is there, before anything is written.
    """
    final = folder.resolve()
    require_ours(final, record=record, generator=generator, own=own)
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex}.aside")
    try:
        with explained("write", final):
            aside.mkdir(parents=True)
            yield aside
            _bring_along(final, aside, but={PAGE, *own})
            swap(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def require_ours(final: Path, *, record: str, generator: str, own: Collection[str] = ()) -> None:
    """Refuse a folder that such a page would not stand in: what is in it could be lost."""
    if not final.exists():
        return
    entries = list(os.scandir(final)) if final.is_dir() else []
    if final.is_dir() and not entries:
        return
    names = {entry.name for entry in entries}
    others = [e.name for e in entries if not e.is_file(follow_symlinks=False) and e.name not in own]
    page_is_ours = PAGE not in names or _made_by(final / PAGE, generator)
    if entries and not others and page_is_ours and names & {record, PAGE}:
        return
    strange = sorted(others or (names - {record} if page_is_ours else {PAGE}))
    found = "a file" if not final.is_dir() else f"other files ({', '.join(strange[:3])})"
    raise RunDirectoryError(
        f"{final}: expected a new folder, an empty one or one that `{generator}` wrote, got "
        f"{found}, which writing would replace. Choose another --output."
    )


def _made_by(page: Path, generator: str) -> bool:
    with page.open("rb") as file:
        return f'content="{generator}"'.encode() in file.read(4096)


def _bring_along(final: Path, aside: Path, *, but: Collection[str]) -> None:
    """Give `aside` the files of `final`: as links to the same bytes, or as copies of them."""
    if not final.exists():
        return
    for entry in os.scandir(final):
        if entry.name in but or (aside / entry.name).exists():
            continue
        try:
            os.link(entry.path, aside / entry.name)
        except OSError:  # a file system without hard links
            shutil.copy2(entry.path, aside / entry.name)
