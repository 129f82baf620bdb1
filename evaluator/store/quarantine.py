"""Damaged shards are set apart with the reason, and made again; no number comes from them."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from evaluator.durable import explained_in_run, flush_to_disk, write_atomically
from evaluator.errors import CorruptShardError, StorageError
from evaluator.store.committed import COMMIT, CommittedShard
from evaluator.store.rundir import RunDirectory

_PLACE = re.compile(r"(?P<shard>\d{5,})\.\d+\Z")
REASON = "reason.json"
"""File in the folder of what was set apart: what it is, and what is wrong with it."""


def set_apart(error: CorruptShardError) -> bool:
    """Set apart the shard that an error is about, and all others of its run that are damaged.

    Images are looked at in the error's own shard only: they may be terabytes. Returns whether this
    call moved the error's shard, or a table of it; another worker may have been first.
    """
    assert error.shard is not None, error
    run, own = RunDirectory.open(error.shard.parents[1]), int(error.shard.name)
    moved = [i for i in run.committed() if set_apart_shard(run, i, images=i == own)]
    return own in moved


def times_set_apart(shard: Path) -> int:
    """How often a shard, or a table of it, was set apart so far, by anybody."""
    return len(list((shard.parents[1] / "quarantine").glob(f"{shard.name}.*")))


def set_apart_shard(run: RunDirectory, index: int, *, images: bool = True) -> bool:
    """Move a shard to quarantine if it is damaged, or only its late tables; whether it was."""
    shard = run.files(index)
    seen = inode(shard.path)
    try:
        committed = _committed_files(shard)
        found = shard.damage(images=images)
    except FileNotFoundError:
        return False
    except StorageError:
        if seen is not None and inode(shard.path) == seen:
            raise
        return False
    if not found or seen is None or inode(shard.path) != seen:
        return False  # it is sound, or somebody set it apart, or made it again, while we looked
    whole = COMMIT in found or bool(committed & set(found))
    return _move([shard.path] if whole else [shard.path / n for n in found], run, index, found)


def set_apart_incomplete(run: RunDirectory, *, seconds: float = math.inf) -> list[str]:
    """Set apart the shards that lack a file they were committed with; a line for each.

    Only names are looked at, so that this costs little where nothing is wrong; after `seconds`, on
    a slow file system, the rest is left to whoever reads it.
    """
    lines, end = [], time.monotonic() + seconds
    for index in run.committed():
        if time.monotonic() > end:
            break
        if run.files(index).lacks_files() and set_apart_shard(run, index, images=False):
            lines.append(f"{run.shard_path(index)}: a file that was committed is not there")
    return lines


def _committed_files(shard: CommittedShard) -> set[str]:
    """What belongs to a shard; nothing where its record is damaged, which `damage` says."""
    try:
        return set(shard.record.rows)
    except CorruptShardError:
        return set()


def inode(path: Path) -> int | None:
    """Which folder this is: a shard that was made again is another; None where there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


class Missing(NamedTuple):
    """What was set apart, and is not there again."""

    shard: str
    tables: tuple[str, ...]
    """The tables that were set apart by themselves; none: the whole shard."""
    why: str

    @property
    def line(self) -> str:
        """For people."""
        return f"shard {self.shard} was found damaged ({self.why or 'unknown'})"

    @property
    def tasks(self) -> list[str]:
        """What workers call the work of making it again."""
        return [f"{self.shard}-{table}" for table in self.tables] or [self.shard]


def waiting(run: RunDirectory, tables: Collection[str] | None = None) -> list[Missing]:
    """Everything that was set apart and is not there again; of late tables, those among `tables`.

    None takes all of them; one that nobody asks for any more is not made again.
    """
    found = []
    with explained_in_run("list", run.path / "quarantine"):
        places = sorted((run.path / "quarantine").iterdir())
    for place in places:
        match = _PLACE.match(place.name)
        if match is None:
            continue
        files = _reasons(place)
        shard = run.shard_path(int(match["shard"]))
        late = [] if (place / COMMIT).exists() else [n for n in files if (place / n).exists()]
        lost = [
            name for name in late
            if not (shard / name).exists() and (tables is None or name in tables)
        ]  # fmt: skip
        if lost or not shard.is_dir():
            why = "; ".join(f"{name}: {reason}" for name, reason in files.items())
            found.append(Missing(match["shard"], tuple(lost) if shard.is_dir() else (), why))
    return found


def _reasons(place: Path) -> dict[str, str]:
    try:
        record: dict[str, str] = json.loads((place / REASON).read_bytes())["damage"]
        return record
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # whoever moved it died before it was written


def _move(paths: list[Path], run: RunDirectory, index: int, found: Mapping[str, str]) -> bool:
    """Move a shard's directory, or some of its files, to a new folder in quarantine.

    Returns False where another worker was first.
    """
    for number in itertools.count():
        place = run.path / "quarantine" / f"{index:05d}.{number}"
        with explained_in_run("set apart", paths[0]):
            try:
                place.mkdir()
            except FileExistsError:
                continue
            try:
                for path in paths:
                    # A directory takes the place of the empty one.
                    os.rename(path, place if path.is_dir() else place / path.name)
            except FileNotFoundError:  # another worker was first
                with suppress(OSError):
                    place.rmdir()
                return False
            flush_to_disk(paths[0].parent)
        break
    record = {"shard": index, "damage": dict(found)}
    write_atomically(
        place / REASON, json.dumps(record, indent=1, sort_keys=True).encode(), in_run=True
    )
    return True
