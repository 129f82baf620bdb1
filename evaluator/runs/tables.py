"""The tables of a run: which there are, in which files, and each of them whole."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from evaluator.durable import explained
from evaluator.errors import CorruptShardError, InputError
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory
from evaluator.text import plain

_TABLE = re.compile(r"[\w.-]+\.parquet\Z")
_FEATURES = re.compile(r"features-(.+)-([0-9a-f]{8})\.parquet\Z")


class FeatureFile(NamedTuple):
    """One extractor's table in a shard."""

    extractor: str
    fingerprint: str
    """Its first eight characters."""

    @property
    def file_name(self) -> str:
        """Name of the file in each shard."""
        return schemas.features_name(self.extractor, self.fingerprint)


def file_names(run: RunDirectory) -> list[str]:
    """The tables of the first committed shard; every shard has these, unless one is being made.

    A table that this shard lost is among them: reading it says that it is lost.
    """
    committed = run.committed()
    if not committed:
        return []
    folder = run.shard_path(committed[0])
    with explained("list", folder):
        names = {path.name for path in folder.glob("*.parquet")}
    with suppress(CorruptShardError):
        names |= {name for name in run.files(committed[0]).record.rows if _TABLE.match(name)}
    return sorted(names)


def feature_files(run: RunDirectory) -> list[FeatureFile]:
    """The extractors whose features the run has; one extractor may be there twice."""
    matches = (_FEATURES.match(name) for name in file_names(run))
    return [FeatureFile(match[1], match[2]) for match in matches if match]


def table_names(run: RunDirectory) -> list[str]:
    """`samples`, `timings`, and what the probes observed: `attention`, `latents`, …."""
    named = (name for name in file_names(run) if not _FEATURES.match(name))
    return [name.removesuffix(".parquet") for name in named]


def metric_files(run: RunDirectory) -> dict[str, Path]:
    """Metric → the file of what it says of each sample."""
    return {path.stem: path for path in sorted((run.path / "metrics").glob("*.parquet"))}


def read_whole(
    run: RunDirectory, file_name: str, *, kind: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """One table of all committed shards, in the order of the plan.

    Shards that never had it are left out; CorruptShardError where one lost it.
    """
    parts = []
    for index in run.committed():
        try:
            parts.append(run.read(index, file_name, kind=kind, columns=columns))
        except FileNotFoundError:
            if kind == "features":
                raise InputError(
                    f"{run.path}: expected {file_name} in every shard, got none in shard "
                    f"{index:05d}. The same `evaluator run` command makes what is missing."
                ) from None
    if not parts:
        return (schemas.SAMPLES if kind == "samples" else pa.schema(schemas.IDENTITY)).empty_table()
    whole = pa.concat_tables(parts, promote_options="default")
    return whole.replace_schema_metadata(parts[0].schema.metadata)


def require_known(name: str, known: Iterable[str], what: str, where: object, remedy: str) -> None:
    """Raise InputError unless `name` is known: with the nearest name, and all that there are."""
    names = sorted(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    there = f"there are {', '.join(names)}" if names else "there are none"
    raise InputError(
        f"{where}: expected {what}, got '{plain(name, limit=100)}'; {there}.{hint} {remedy}"
    )


def chosen_features(
    run: RunDirectory, extractor: str, fingerprint: str | None, used: Mapping[str, str]
) -> FeatureFile:
    """The table of an extractor; of several, the one that the metrics `used`, or that was named."""
    there = feature_files(run)
    remedy = "Add an extractor under features, and run the same `evaluator run` command again."
    require_known(extractor, {file.extractor for file in there}, "an extractor", run.path, remedy)
    mine = [file for file in there if file.extractor == extractor]
    wanted = fingerprint or (used.get(extractor) if len(mine) > 1 else None)
    found = [file for file in mine if wanted is None or _same(file.fingerprint, wanted)]
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"{run.path}: expected one table of features of '{extractor}', got {len(found)} "
        f"{'of' if wanted is None else 'for'} fingerprint "
        f"{wanted or 'any'}; there are {', '.join(file.fingerprint for file in mine)}. "
        "Name one of them as fingerprint."
    )


def _same(short: str, wanted: str) -> bool:
    return wanted.startswith(short) or short.startswith(wanted)
