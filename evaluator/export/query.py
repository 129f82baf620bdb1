"""SQL over the tables of runs, in a database that can read nothing else.

DuckDB gets the tables as Arrow datasets, which pyarrow reads file by file and column by column as
a query asks for them. DuckDB itself may touch no file, network or extension, and its settings are
locked before it sees the query: measured with version 2.0, `read_csv`, `read_text`, `glob`, `COPY`,
`ATTACH`, `INSTALL`, `LOAD` and `SET` are refused so. No statement runs for ever.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Set
from typing import Any

import pyarrow as pa

from evaluator.errors import ConfigError, CorruptShardError
from evaluator.export.bounded import SECONDS, calls_summary, fetch
from evaluator.export.extras import require
from evaluator.export.json_tables import records
from evaluator.export.views import View, views_of
from evaluator.runs import Run
from evaluator.store.committed import MEND
from evaluator.text import plain

_SETTINGS = {
    "threads": "1",  # sums in one order: the same query gives the same digits
    "python_enable_replacements": "false",  # a name in a query is never a variable of ours
    "temp_directory": "''",
    "enable_progress_bar": "false",  # it is drawn into what a program reads
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "allow_persistent_secrets": "false",
    "lock_configuration": "true",
}
_READING = re.compile(r"reading the stream registered|IOError|ArrowInvalid")
_OWN = re.compile(r"[A-Z][A-Za-z ]* Error: ")
"""What DuckDB says of a statement while rows are fetched, whatever carries it."""
_MISSING = re.compile(r"Table with name \"?(.+?)\"? does not exist")


class Query:
    """A database over some runs; tables are opened when a statement names them."""

    def __init__(self, runs: Mapping[str, Run]) -> None:
        self._duckdb = require("duckdb", "query", "query")
        self.views: dict[str, View] = views_of(runs)
        self._registered: set[str] = set()
        self._connection = self._duckdb.connect(":memory:")
        for name, value in _SETTINGS.items():
            self._connection.execute(f"SET {name} = {value}")

    def tables(self) -> list[tuple[str, list[str]]]:
        """View → its columns with their types, as SQL calls them."""
        self._register(self.views)
        described = []
        for name in self.views:
            rows = self._connection.execute(f'DESCRIBE "{name}"').fetchall()
            described.append((name, [f"{row[0]} {row[1]}" for row in rows]))
        return described

    @property
    def opened(self) -> Set[str]:
        """The views that statements named so far."""
        return self._registered

    def run(self, sql: str, *, seconds: float | None = SECONDS) -> pa.Table:
        """The result of one SELECT; ConfigError where it is none, not right, or takes longer.

        Columns of one name are told apart: the second `key` is `key_1`.
        """
        duckdb = self._duckdb
        try:
            statement = self._only_select(sql)
            self._register(self._named(statement))
            try:
                return fetch(self._connection, statement, seconds=seconds)
            except duckdb.CatalogException:
                if set(self.views) <= self._registered:
                    raise
            self._register(self.views)  # named in a way that only running it shows
            return fetch(self._connection, statement, seconds=seconds)
        except (OSError, pa.ArrowException, duckdb.Error) as error:
            asked = isinstance(error, duckdb.Error) or _OWN.match(str(error))
            if _READING.search(str(error)) or not asked:
                raise self._damaged(error) from error
            raise ConfigError(f"query: {self._explained(error)}") from error

    def _damaged(self, error: Exception) -> CorruptShardError:
        return CorruptShardError(
            f"query: expected tables as they were written, got: {plain(error, limit=400)}. {MEND}"
        )

    def _only_select(self, sql: str) -> str:
        """The statement, if it is the only one and reads."""
        statements = self._connection.extract_statements(sql)
        kinds = [statement.type for statement in statements]
        if kinds != [self._duckdb.StatementType.SELECT]:
            got = ", ".join(str(kind).rpartition(".")[2] for kind in kinds) or "nothing"
            raise ConfigError(
                f"query: expected one SELECT, got {got}. The tables of a run are only read; "
                "--csv, --json and --parquet write what a SELECT gives."
            )
        if calls_summary(self._duckdb, sql):
            raise ConfigError(
                "query: expected functions that end, got DuckDB's own summary(…), which does not. "
                "SUMMARIZE samples, or SUMMARIZE SELECT …, says the same of each column."
            )
        return str(statements[0].query)

    def _named(self, statement: str) -> set[str]:
        """The views whose names are words of the statement; all of them where none is."""
        words = set(re.findall(r"\w+", statement.lower()))
        return {view for view in self.views if view.lower() in words} or set(self.views)

    def _register(self, names: set[str] | Mapping[str, View]) -> None:
        for name in [view for view in self.views if view in names]:
            if name not in self._registered:
                self.views[name].register(self._connection)
                self._registered.add(name)

    def _explained(self, error: Exception) -> str:
        said = str(error).strip()
        missing = _MISSING.search(said)
        if not missing:
            return said
        near = difflib.get_close_matches(missing[1].lower(), list(self.views), n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        return (
            f"expected a table of the run, got '{missing[1]}'.{hint} There are "
            f"{', '.join(self.views)}."
        )


def shown(table: pa.Table, *, limit: int) -> list[list[Any]]:
    """The first rows as Python values."""
    return [list(record.values()) for record in records(table.slice(0, limit))]
