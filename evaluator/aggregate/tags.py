"""Groups of samples by a tag of their prompts: category, region, challenge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluator.errors import MetricError
from evaluator.store.rundir import RunDirectory

MAX_VALUES = 200
"""More values than this make a tag a name, not a group."""


@dataclass(frozen=True, slots=True)
class Group:
    """The samples whose prompts have one value of a tag."""

    tag: str
    value: str
    members: NDArray[np.bool_]
    """Which samples of the plan belong to it."""

    @property
    def num_planned(self) -> int:
        """How many samples it has, with or without an image."""
        return int(self.members.sum())

    def members_among(self, values: Values, num_samples: int) -> NDArray[np.bool_] | None:
        """Which samples of a reference belong to it; None where none of them has the tag."""
        known = any(value is not None for _, part in values for value in part)
        return members(values, self.value, num_samples) if known else None


Values = Sequence[tuple[int, list[str | None]]]
"""Position of a shard's first sample, and the tag's value of each of its samples."""


def tag_values(run: RunDirectory, shards: Sequence[int], tag: str) -> list[tuple[int, list[Any]]]:
    """The value of a tag, or None, of every sample of some shards."""
    values = []
    for shard in shards:
        table = run.read(shard, "samples.parquet", kind="samples", columns=["tags"])
        part = [dict(tags or ()).get(tag) for tags in table.column("tags").to_pylist()]
        values.append((run.shard_starts[shard], part))
    return values


def members(values: Values, value: str, num_samples: int) -> NDArray[np.bool_]:
    """Which samples of a plan have this value."""
    marks = np.zeros(num_samples, np.bool_)
    for start, part in values:
        marks[start : start + len(part)] = [each == value for each in part]
    return marks


def groups_of(values: Values, tag: str, num_samples: int) -> list[Group]:
    """One group for each value of a tag, in alphabetical order; raises where there are none."""
    found = sorted({value for _, part in values for value in part if value is not None})
    if not found:
        raise MetricError(
            f"by: expected prompts with the tag '{tag}', got none with it; name a column of the "
            "prompts file that was kept as a tag, or a tag in its 'tags'"
        )
    if len(found) > MAX_VALUES:
        raise MetricError(
            f"by: expected at most {MAX_VALUES} values of the tag '{tag}', got {len(found)}; "
            "group by a coarser one"
        )
    return [Group(tag, value, members(values, value, num_samples)) for value in found]
