"""Damaged shards are set apart with the reason, and made again; no number comes from them."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from evaluator.durable import explained, flush_to_disk, write_atomically
from evaluator.errors import CorruptShardError, StorageError
from evaluator.store.committed import COMMIT, CommittedShard
from evaluator.store.rundir import RunDirectory

_PLACE = re.compile(r"(?P<shard>\d{5,})\.\d+\Z")
REASON = "reason.json"
"""File in the folder of what was set apart: what it is, and what is wrong with it."""


def set_apart(error: CorruptShardError) -> None:
    """Set apart the shard that an error is about, and all others of its run that are damaged.

    Images are looked at in the error's own shard only: they may be terabytes.
    """
    assert error.shard is not None, error
    run = RunDirectory.open(error.shard.parents[1])
    for index in run.committed():
        set_apart_shard(run, index, images=index == int(error.shard.name))


def set_apart_shard(run: RunDirectory, index: int, *, images: bool = True) -> bool:
    """Move a shard to quarantine if it is damaged, or only its late tables; whether it was."""
    shard = run.files(index)
    seen = _inode(shard.path)
    try:
        committed = _committed_files(shard)
        found = shard.damage(images=images)
    except FileNotFoundError:
        return False
    except StorageError:
        if seen is not None and _inode(shard.path) == seen:
            raise
        return False
    if not found or seen is None or _inode(shard.path) != seen:
        return False  # it is sound, or somebody set it apart, or made it again, while we looked
    whole = COMMIT in found or bool(committed & set(found))
    _move([shard.path] if whole else [shard.path / name for name in found], run, index, found)
    return True


def set_apart_incomplete(run: RunDirectory) -> bool:
    """Set apart the shards that lack a file they were committed with; whether there were any.

    Only names are looked at, so that this costs little where nothing is wrong.
    """
    found = [index for index in run.committed() if run.files(index).lacks_files()]
    return sum(set_apart_shard(run, index, images=False) for index in found) > 0


def _committed_files(shard: CommittedShard) -> set[str]:
    """What belongs to a shard; nothing where its record is damaged, which `damage` says."""
    try:
        return set(shard.record.rows)
    except CorruptShardError:
        return set()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def waiting(run: RunDirectory) -> list[str]:
    """A line for everything that was set apart and is not there again."""
    lines = []
    with explained("list", run.path / "quarantine"):
        places = sorted((run.path / "quarantine").iterdir())
    for place in places:
        match = _PLACE.match(place.name)
        if match is None:
            continue
        files = _reasons(place)
        shard = run.shard_path(int(match["shard"]))
        late = [] if (place / COMMIT).exists() else [n for n in files if (place / n).exists()]
        if not shard.is_dir() or any(not (shard / name).exists() for name in late):
            why = "; ".join(f"{name}: {reason}" for name, reason in files.items())
            lines.append(f"shard {match['shard']} was found damaged ({why or 'unknown'})")
    return lines


def _reasons(place: Path) -> dict[str, str]:
    try:
        record: dict[str, str] = json.loads((place / REASON).read_bytes())["damage"]
        return record
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # whoever moved it died before it was written


def _move(paths: list[Path], run: RunDirectory, index: int, found: Mapping[str, str]) -> None:
    """Move a shard's directory, or some of its files, to a new folder in quarantine."""
    for number in itertools.count():
        place = run.path / "quarantine" / f"{index:05d}.{number}"
        with explained("set apart", paths[0]):
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
                return
            flush_to_disk(paths[0].parent)
        break
    record = {"shard": index, "damage": dict(found)}
    write_atomically(place / REASON, json.dumps(record, indent=1, sort_keys=True).encode())
