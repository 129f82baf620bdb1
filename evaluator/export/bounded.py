"""One statement of DuckDB's, in a thread of its own: Ctrl-C, time and size end it at once.

While DuckDB works, Python hears no signal: not at all where it waits for a table of Arrow's. And
some statements never end, as a join of everything with everything, or DuckDB's own function
`summary` of a table's name (measured with version 2.0; it is refused by name).
"""

from __future__ import annotations

import re
import threading
from itertools import pairwise
from typing import Any

import pyarrow as pa

from evaluator.errors import ConfigError

SECONDS = 600.0
"""How long a statement may take unless another limit is asked for."""

MAX_BYTES = 4 * 2**30
"""Of a result in memory: a million vectors of 1,024 numbers."""

_ROWS = 100_000
"""Rows that are fetched at once."""

_BETWEEN = re.compile(rb"/\*.*?\*/|--[^\n]*|[\s\"]+", re.DOTALL)
"""What may stand around a name: comments, spaces and quotes."""

_LEAVING_SECONDS = 2.0
"""DuckDB heeds an interrupt within half a second."""


def fetch(
    connection: Any,
    statement: str,
    *,
    seconds: float | None = SECONDS,
    max_bytes: int = MAX_BYTES,
) -> pa.Table:
    """The whole result, its columns under names that differ.

    Raises ConfigError after `seconds` (None: never), and where the result is larger.
    """
    work = _Fetching(connection, statement, max_bytes)
    work.start()
    try:
        ended = work.ended.wait(seconds)
    except BaseException:  # Ctrl-C
        work.leave()
        raise
    if not ended:
        work.leave()
        raise ConfigError(
            f"query: expected an answer within {seconds:g} s, got none yet. Ask for less "
            "(a WHERE, a join USING key and image_index), or give it longer: --timeout SECONDS, "
            "0 for no limit."
        )
    if work.error is not None:
        raise work.error
    assert work.table is not None
    return work.table


class _Fetching(threading.Thread):
    def __init__(self, connection: Any, statement: str, max_bytes: int) -> None:
        super().__init__(daemon=True, name="query")
        self.connection, self.statement, self.max_bytes = connection, statement, max_bytes
        self.ended = threading.Event()
        self.table: pa.Table | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.table = self._fetched()
        except BaseException as error:  # for the thread that waits
            self.error = error
        finally:
            self.ended.set()

    def leave(self) -> None:
        self.connection.interrupt()
        self.join(_LEAVING_SECONDS)

    def _fetched(self) -> pa.Table:
        reader = self.connection.sql(self.statement).to_arrow_reader(_ROWS)
        batches, size = [], 0
        for batch in reader:
            size += batch.nbytes
            if size > self.max_bytes:
                raise ConfigError(
                    f"query: expected a result of at most {self.max_bytes / 2**30:g} GiB, got "
                    "more. Name fewer columns, or add a WHERE or a LIMIT."
                )
            batches.append(batch)
        table = pa.Table.from_batches(batches, schema=reader.schema)
        return table.rename_columns(distinct(table.column_names))


def distinct(names: list[str]) -> list[str]:
    """Names of columns of which no two are the same: the second `key` is `key_1`."""
    found: list[str] = []
    for name in names:
        unique, count = name, 0
        while unique in found or (count and unique in names):
            count += 1
            unique = f"{name}_{count}"
        found.append(unique)
    return found


def calls_summary(duckdb: Any, sql: str) -> bool:
    """Whether it calls `summary`; in a text, or as a column's name, the word is harmless."""
    starts = [place for place, _ in duckdb.tokenize(sql)]
    words = [sql.encode()[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    names = list(filter(None, (_BETWEEN.sub(b"", word).lower() for word in words)))
    return any(pair == (b"summary", b"(") for pair in pairwise(names))
