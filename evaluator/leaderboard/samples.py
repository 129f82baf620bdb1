"""Scores of single samples, read from `metrics/*.parquet`, as what each prompt adds to a mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluator.aggregate.summary import is_real
from evaluator.errors import EvaluatorError
from evaluator.leaderboard.made_with import mapping
from evaluator.statistics.ranking import influences

if TYPE_CHECKING:
    import pyarrow as pa

AGREE = 1e-6
"""How closely the mean of a table must agree with the number, relative to their size and spread."""


class _Found(NamedTuple):
    path: Path
    column: str
    factor: float
    offset: float


class PromptNumbers:
    """Numbers the prompts of all runs alike, and remembers the keys that it saw last.

    Runs over the same prompts have the same column of keys, which then is compared, not looked up.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._last: Any = None
        self._last_numbers: NDArray[np.int64] = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, keys: pa.ChunkedArray) -> NDArray[np.int64]:
        """(N,) number of each sample's prompt."""
        if self._last is None or not keys.equals(self._last):
            encoded = keys.combine_chunks().dictionary_encode()
            numbers = self._numbers
            places = [
                numbers.setdefault(key, len(numbers)) for key in encoded.dictionary.to_pylist()
            ]
            self._last = keys
            self._last_numbers = np.array(places, np.int64)[encoded.indices.to_numpy()]
        return self._last_numbers


def tables_of(run: Path) -> dict[str, list[_Found]]:
    """Name of a number → the columns of `metrics/*.parquet` whose mean it may be."""
    from evaluator.store.schemas import table_note

    found: dict[str, list[_Found]] = {}
    for path in sorted((run / "metrics").glob("*.parquet")):
        try:
            means = mapping(table_note(path).get("means"))
        except (EvaluatorError, OSError, ValueError):
            continue  # without its table a number is compared by its interval
        for name, entry in means.items():
            mean = mapping(entry)
            factor, offset = mean.get("factor", 1.0), mean.get("offset", 0.0)
            if isinstance(mean.get("column"), str) and is_real(factor) and is_real(offset):
                found.setdefault(name, []).append(_Found(path, mean["column"], factor, offset))
    return found


def influence_of(
    tables: list[_Found], value: float, prompts: PromptNumbers
) -> NDArray[np.float64] | None:
    """(P,) what each prompt adds to the mean `value`; None where no table has that mean.

    P is the number of prompts known after this one: later runs may add some.
    """
    for table in tables:
        read = _scores(table, prompts)
        if read is None:
            continue
        numbers, scores = read
        mean = table.offset + table.factor * float(scores.mean())
        slack = AGREE * (abs(value) + abs(table.factor) * float(scores.std()) + 1e-300)
        if abs(mean - value) <= slack:
            return influences(scores, numbers, len(prompts), factor=table.factor)
    return None


def _scores(
    table: _Found, prompts: PromptNumbers
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Prompt and score of each sample in the mean; None where the table cannot be read."""
    from evaluator.store.schemas import read_table

    try:
        rows = read_table(table.path, kind="metric", columns=["key", table.column])
        numbers = prompts.of(rows.column("key"))
        scores = rows.column(table.column).cast("float64").to_numpy()
    except (EvaluatorError, OSError, KeyError, ValueError, TypeError):
        return None
    proper = np.isfinite(scores)
    if not proper.any():
        return None
    return (numbers, scores) if proper.all() else (numbers[proper], scores[proper])
