"""A run in a remote store: the same files under the same names, and a list of what was pushed.

```
URL/
  init/  shards/00007/  metrics.json  metrics/  report/  launches/    as in the run directory
  pushed.json             name → size and SHA-256, so that the next push knows what is there
```

A shard counts once its `commit.json` is there, which is put last and says what belongs to it. Who
works on what (`claims/`, `staging/`) stays in the run directory: nobody works in a store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from evaluator.errors import CorruptShardError, InputError, RunDirectoryError
from evaluator.remote import RemotePath, Stored

MANIFEST = "pushed.json"
INIT = ("init/config.yaml", "init/provenance.json", "init/plan.parquet")
COMMIT = "commit.json"
NOT_MIRRORED = frozenset({"claims", "staging", "quarantine"})
"""Folders of a run directory that mean something only to those who work in it."""
NUM_CONNECTIONS = 8
"""Shards that travel at the same time."""

_SHARD_FILE = re.compile(r"shards/(\d{5,})/([^/]+)\Z")


class Pushed(NamedTuple):
    """One file as it was pushed."""

    size: int
    sha256: str


class Recorded(NamedTuple):
    """What a shard's own record says of its files."""

    names: frozenset[str]
    sha256: Mapping[str, str]
    """Of those that are the same in every run of one plan."""


class Mirrored(NamedTuple):
    """What a push or a pull came to."""

    num_shards: int
    """Shards that are there now."""
    planned_shards: int
    num_files: int
    """Files that travelled."""
    num_bytes: int
    faults: tuple[str, ...]
    """Why a shard or a file did not; everything else did."""

    @property
    def exit_status(self) -> int:
        """0 all there, 1 something is wrong, 3 shards are still to come."""
        if self.faults:
            return 1
        return 0 if self.num_shards == self.planned_shards else 3


def remote_run(url: str) -> RemotePath:
    """The address of a run in a remote store; InputError for anything else."""
    remote = RemotePath.parse(url)
    if remote is None or remote.address.startswith("hf://"):
        raise InputError(
            f"{url.partition('?')[0]}: expected s3://bucket/folder or gs://bucket/folder, got"
            " something else; name a folder of a bucket"
        )
    return remote


def read_record(folder: Path, *, where: object, mend: str) -> Recorded:
    """The record of a committed shard in `folder`, which messages call `where`."""
    path = folder / COMMIT
    try:
        record = json.loads(path.read_bytes())
        found = Recorded(frozenset(record["rows"]), dict(record["sha256"]))
        if odd := sorted(name for name in found.names | found.sha256.keys() if not _plain(name)):
            raise ValueError(f"a file called {odd[0]!r}")
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptShardError(
            f"{where}/{COMMIT}: expected the record of a committed shard, got {error!r}; {mend}"
        ) from error


def _plain(name: str) -> bool:
    """Whether a name is that of a file in the shard's own folder: a record may be anybody's."""
    return bool(name) and not name.startswith(".") and not {"/", "\\", "\0"} & set(name)


def read_manifest(remote: RemotePath, listed: Mapping[str, Stored]) -> dict[str, Pushed]:
    """What was pushed so far. A list that cannot be read costs another upload, nothing else."""
    if MANIFEST not in listed:
        return {}
    try:
        files = json.loads((remote / MANIFEST).read_bytes())["files"]
        return {name: Pushed(int(size), str(sha256)) for name, (size, sha256) in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def write_manifest(remote: RemotePath, files: Mapping[str, Pushed]) -> None:
    """Replace the list of what was pushed."""
    record = {"format": 1, "files": {name: list(files[name]) for name in sorted(files)}}
    (remote / MANIFEST).write_bytes(json.dumps(record, indent=0).encode())


def shards_in(listed: Mapping[str, Stored]) -> dict[int, list[str]]:
    """Shard → the names of its files in a store."""
    found: dict[int, list[str]] = {}
    for name in listed:
        match = _SHARD_FILE.match(name)
        if match and f"{int(match[1]):05d}" == match[1] and not match[2].startswith("."):
            found.setdefault(int(match[1]), []).append(match[2])
    return dict(sorted(found.items()))


def other_run(where: object, what: str) -> RunDirectoryError:
    """The error for a place that holds something else than this run."""
    return RunDirectoryError(
        f"{where}: expected a new place or this run, got {what}; name another place"
    )
