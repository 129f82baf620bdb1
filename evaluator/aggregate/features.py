"""Reading features and scores of a range of shards, in plan order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from evaluator.errors import MetricError
from evaluator.store.rundir import RunDirectory
from evaluator.store.schemas import features_name, schema_note

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Rows(NamedTuple):
    """One shard's values: samples without an image, or without the score, are left out."""

    values: NDArray[np.float64] | NDArray[np.float32]
    """(N, D) float32 features or logits, or (N,) float64 scores."""
    positions: NDArray[np.int64]
    """Place of each row in the plan."""
    clusters: NDArray[np.int64]
    """Number of each row's prompt."""


@dataclass
class FeatureReader:
    """One extractor's tables of one run."""

    run: RunDirectory
    extractor: str
    fingerprint: str

    @property
    def file_name(self) -> str:
        """Name of the table in each shard."""
        return features_name(self.extractor, self.fingerprint)

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """Number of the prompt of every planned sample."""
        return prompt_numbers(self.run)

    @cached_property
    def _first(self) -> int:
        committed = self.run.committed()
        if not committed:
            raise MetricError(f"{self.run.path}: expected committed shards, got none yet.")
        return committed[0]

    @cached_property
    def _schema(self) -> pa.Schema:
        try:
            return self.run.files(self._first).schema(self.file_name)
        except FileNotFoundError:
            raise MetricError(
                f"{self.run.path}: expected features of '{self.extractor}' with fingerprint "
                f"{self.fingerprint[:8]}, got no {self.file_name}. Run `evaluator run` again with "
                f"'{self.extractor}' under features."
            ) from None

    def _table(self, shard: int, column: str) -> pa.Table:
        try:
            return self.run.read(shard, self.file_name, kind="features", columns=[column])
        except FileNotFoundError:
            raise MetricError(
                f"{self.run.path}: expected {self.file_name} in every shard, got none in shard "
                f"{shard:05d}. `evaluator status` says whether it was set aside, and why; run the "
                "same `evaluator run` command again, with --retry-failed in that case."
            ) from None

    def column(self, wanted: str) -> str:
        """The column that `features`, `logits` or a score's name stands for."""
        schema = self._schema
        if wanted != "logits":
            return wanted
        logits = schema_note(schema).get("logits")
        if not isinstance(logits, str):
            raise MetricError(
                f"expected an extractor with class logits, got '{self.extractor}', which has none."
            )
        return logits

    @cached_property
    def extractor_fingerprint(self) -> str:
        """Fingerprint of the extractor itself: a lossy codec or half precision is left out."""
        note = schema_note(self._schema)
        return str(note.get("extractor_fingerprint", self.fingerprint))

    def dim(self, column: str) -> int:
        """Dimension of a column of vectors; 1 for scores. Known to ranks that read no shard."""
        schema = self._schema
        if column not in schema.names:
            raise MetricError(
                f"expected '{column}' from extractor '{self.extractor}', got "
                f"{', '.join(schema.names[2:])}. Name an extractor that has it, or another metric."
            )
        kind = schema.field(column).type
        return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else 1

    def has(self, column: str) -> bool:
        """Whether the tables have a column."""
        return column in self._schema.names

    def read(self, column: str, shards: list[int]) -> Iterator[Rows]:
        """The rows of some shards, shard by shard."""
        for shard in shards:
            table = self._table(shard, column)
            start = self.run.shard_starts[shard]
            values = table.column(column).combine_chunks()
            valid = values.is_valid().to_numpy(zero_copy_only=False)
            positions = np.flatnonzero(valid).astype(np.int64) + start
            if pa.types.is_fixed_size_list(values.type):
                # flatten() leaves out null lists, and respects slices where .values does not.
                flat = values.flatten().to_numpy(zero_copy_only=False)
                array = flat.reshape(len(positions), values.type.list_size)
            else:
                array = values.drop_null().to_numpy(zero_copy_only=False)
            yield Rows(array, positions, self.clusters[positions])


def prompt_numbers(run: RunDirectory) -> NDArray[np.int64]:
    """Number of the prompt of every planned sample; a prompt's images lie together."""
    indices = run.plan_column("image_index").to_numpy()
    numbers: NDArray[np.int64] = np.cumsum(indices == 0, dtype=np.int64) - 1
    return numbers


def share(shards: list[int], rank: int, size: int) -> list[int]:
    """A rank's contiguous part of the shards; ranks' parts in order give the whole in order."""
    return shards[rank * len(shards) // size : (rank + 1) * len(shards) // size]
