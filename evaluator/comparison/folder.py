"""A comparison on disk: `comparison.json`, and `samples.parquet` with every pair's scores."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from evaluator.comparison.engine import Compared
from evaluator.comparison.pairs import Pairs
from evaluator.comparison.records import Comparison
from evaluator.comparison.values import Scores
from evaluator.durable import explained, replacing, write_atomically
from evaluator.errors import InputError, RunDirectoryError
from evaluator.store.schemas import IDENTITY, write_table

RECORD = "comparison.json"
SAMPLES = "samples.parquet"
MAX_NAME = 120
"""Characters of a folder's name that are taken from runs' names."""


def default_folder(comparison_names: Sequence[str]) -> Path:
    """`compare-<A>-<B>` in the current folder; names become safe to be part of a path."""
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") for name in comparison_names]
    return Path("-".join(["compare", *(name or "run" for name in names)])[:MAX_NAME].rstrip("-."))


def require_folder(folder: Path) -> None:
    """Raise RunDirectoryError where something else is: it is asked before anything is computed."""
    with explained("read", folder):
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        if folder.exists() and (not folder.is_dir() or (names and RECORD not in names)):
            found = f"a folder with other files ({', '.join(names[:3])})" if names else "a file"
            raise RunDirectoryError(
                f"{folder}: expected a new or empty folder, or one with a comparison, got {found}. "
                "Choose another --output."
            )


def write_folder(compared: Compared, folder: Path) -> None:
    """Write both files; those of an earlier comparison are replaced."""
    require_folder(folder)
    with explained("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / SAMPLES) as aside:
        write_table(samples_table(compared), aside, kind="comparison")
    content = json.dumps(
        compared.comparison.record(), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False
    )
    # half a surrogate pair, which JSON of others may hold, stays the escape that it was
    write_atomically(folder / RECORD, content.encode(errors="backslashreplace"))


def read_comparison(folder: Path) -> Comparison:
    """The comparison in a folder; raises InputError where there is none."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder}: expected {RECORD}, which `evaluator compare` writes, got {error}. "
            "Check the path, or compare again."
        ) from error
    return Comparison.from_record(record)


def samples_table(compared: Compared) -> pa.Table:
    """One row a pair: key, image index, `run` (letter of the other run), and each score of both.

    Columns of a score are `<name>_baseline`, `<name>_other`, `<name>_difference`; null where a
    sample has no finite one.
    """
    parts = [_part(letter, *found) for letter, found in compared.pairs.items()]
    fields = [*IDENTITY, pa.field("run", pa.string(), nullable=False)]
    empty: pa.Table = pa.schema(fields).empty_table()
    whole: pa.Table = pa.concat_tables([empty, *parts], promote_options="default")
    return whole.combine_chunks()


def _part(letter: str, pairs: Pairs, scores: tuple[Scores, ...]) -> pa.Table:
    columns = {
        "key": pairs.keys,
        "image_index": pa.array(pairs.indices, pa.int32()),
        "run": pa.array([letter] * len(pairs), pa.string()),
    }
    for score in scores:
        first, second = score.values
        columns[f"{score.name}_baseline"] = pa.array(first, from_pandas=True)
        columns[f"{score.name}_other"] = pa.array(second, from_pandas=True)
        columns[f"{score.name}_difference"] = pa.array(second - first, from_pandas=True)
    given = {field.name: field for field in IDENTITY}
    fields = [
        given.get(name, pa.field(name, column.type, nullable=name != "run"))
        for name, column in columns.items()
    ]
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields))
