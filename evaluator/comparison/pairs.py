"""Which samples two runs have in common: the same key, image index and prompt, and an image each.

Shards and orders may differ: samples are joined by their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evaluator.aggregate.feed import Placement
from evaluator.comparison.opened import OpenedRun
from evaluator.comparison.records import Refusal
from evaluator.store.rundir import RunDirectory
from evaluator.text import count_of

Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]

MAX_NAMED = 3
"""Keys that a sentence names one by one."""
SAMPLES = "samples"
"""The subject of refusals about samples."""


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """P pairs of samples, in the order of the baseline's plan."""

    places: tuple[Integers, Integers]
    """(P,) and (P,): where each stands in the baseline's plan and in the other's."""
    prompts: Integers
    """(P,) number of the prompt, from 0."""
    keys: pa.Array
    """(P,) key of the prompt."""
    indices: Integers
    """(P,) image index."""
    only: tuple[int, int]
    """Samples with an image and without a partner, in each run."""
    refusals: tuple[Refusal, ...]
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def num_prompts(self) -> int:
        """Prompts of the pairs."""
        return len(np.unique(self.prompts))

    def placement(self, side: int, num_samples: int) -> Placement:
        """What to feed of the run `side` (0 the baseline, 1 the other)."""
        places = self.places[side]
        members = np.zeros(num_samples, np.bool_)
        members[places] = True
        positions = len(self) + np.arange(num_samples)
        positions[places] = np.arange(len(self))
        clusters = np.zeros(num_samples, np.int64)
        clusters[places] = self.prompts
        return Placement(members, positions, clusters)

    def where(self, side: int, table: pa.Table) -> Integers:
        """The pair that each row of a table of the run belongs to; -1 for none.

        The table has `key` and `image_index`, as every table of a run.
        """
        names = _joined(self.keys, pa.array(self.indices))
        rows = _joined(table.column("key"), table.column("image_index"))
        found = pc.fill_null(pc.index_in(rows, value_set=names), -1)
        return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


def pair(baseline: OpenedRun, other: OpenedRun) -> Pairs:
    """Join two runs; what has no partner or another prompt is left out, and said."""
    places = _joined_places(baseline.run, other.run)
    same, refusals, warnings = _same_prompts(baseline, other, *places)
    a, b = (each[same] for each in places)
    there = baseline.present[a] & other.present[b]
    a, b = a[there], b[there]
    keys = baseline.run.plan_column("key").combine_chunks().take(pa.array(a))
    indices = baseline.run.plan_column("image_index").to_numpy()[a].astype(np.int64)
    prompts = np.cumsum(_starts(keys), dtype=np.int64) - 1 if len(a) else np.zeros(0, np.int64)
    only = int(baseline.present.sum()) - len(a), int(other.present.sum()) - len(b)
    warnings += [*_unfinished(baseline), *_unfinished(other)]
    if len(a) == 0 and not refusals:
        refusals.append(_no_pairs(baseline, other, len(places[0])))
    elif len(a) and any(only):
        warnings.append(
            f"compared on the {len(a):,} samples that both have, so that n is equal: {only[0]:,} "
            f"of {baseline.letter} and {only[1]:,} of {other.letter} have no partner"
        )
    if len(a) and _same_images(baseline, other, a, b):
        warnings.append(
            f"every image of {other.letter} is that of {baseline.letter} to the bit: is one a copy "
            "of the other?"
        )
    return Pairs((a, b), prompts, keys, indices, only, tuple(refusals), tuple(warnings))


def _same_images(baseline: OpenedRun, other: OpenedRun, a: Integers, b: Integers) -> bool:
    """Whether all pairs have the same pixels; not where a hash is missing."""
    hashes = _both("pixels_sha256", baseline, other, a, b)
    return all(mine is not None and mine == theirs for mine, theirs in hashes)


def _starts(keys: pa.Array) -> Booleans:
    """Whether a row's key differs from the one before: a prompt's images lie together."""
    changed = np.ones(len(keys), np.bool_)
    if len(keys) > 1:
        changed[1:] = pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    return changed


def _joined(keys: Any, indices: Any) -> pa.Array:
    """`key/index`; a key holds no slash."""
    names = pc.binary_join_element_wise(keys, pc.cast(indices, pa.string()), "/")
    return names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names


def _joined_places(a: RunDirectory, b: RunDirectory) -> tuple[Integers, Integers]:
    """Places of the same (key, image index) in both plans, in the order of the first."""
    names = [_joined(run.plan_column("key"), run.plan_column("image_index")) for run in (a, b)]
    found = pc.index_in(names[0], value_set=names[1])
    both = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
    theirs = found.drop_null().to_numpy(zero_copy_only=False)
    return both.astype(np.int64), np.asarray(theirs, np.int64)


def _same_prompts(
    baseline: OpenedRun, other: OpenedRun, a: Integers, b: Integers
) -> tuple[Booleans, list[Refusal], list[str]]:
    """Which of the joined samples were made of the same prompt, and what is to be said."""
    contents = [
        run.plan_column("content").combine_chunks().take(pa.array(places))
        for run, places in ((baseline.run, a), (other.run, b))
    ]
    same = pc.equal(*contents).to_numpy(zero_copy_only=False).copy()
    if same.all():
        return same, [], []
    # The hash of existing images is theirs, not the prompt's, and a tag changes that of a prompt.
    texts, labels = (_both(name, baseline, other, a, b) for name in ("prompt", "class_label"))
    untold, alike = 0, 0
    for i in np.flatnonzero(~same):
        known = [pair for pair in (texts[i], labels[i]) if None not in pair]
        agrees = all(first == second for first, second in known)
        there = bool(baseline.present[a[i]] and other.present[b[i]])
        same[i] = agrees or not there
        untold += agrees and not known and there
        alike += agrees and bool(known) and there
    warnings, refusals = [], []
    if untold and not (baseline.is_images and other.is_images):
        warnings.append(
            f"{untold:,} samples have no prompt in one of the runs: paired by their keys alone"
        )
    if alike and not (baseline.is_images or other.is_images):
        warnings.append(
            f"the prompts of {alike:,} samples have the same text in both runs and differ "
            "elsewhere (tags, attachments, metadata)"
        )
    if not same.all():
        refusals.append(_other_prompts(baseline, other, a[~same], len(a)))
    return same, refusals, warnings


def _both(
    name: str, baseline: OpenedRun, other: OpenedRun, a: Integers, b: Integers
) -> list[tuple[Any, Any]]:
    mine, theirs = baseline.column(name), other.column(name)
    return [(mine[i], theirs[j]) for i, j in zip(a, b, strict=True)]


def _other_prompts(baseline: OpenedRun, other: OpenedRun, places: Integers, of: int) -> Refusal:
    keys = baseline.run.plan_column("key").combine_chunks().take(pa.array(places)).to_pylist()
    named = _named(list(dict.fromkeys(keys)))
    return Refusal(
        SAMPLES,
        f"expected the same prompts under the same keys, got others in {other.letter} for "
        f"{len(places):,} of {of:,} samples ({named}), which are left out; run both on one file "
        "of prompts",
    )


def _named(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - MAX_NAMED:,} more keys" if len(keys) > MAX_NAMED else ""
    return ", ".join(keys[:MAX_NAMED]) + more


def _unfinished(opened: OpenedRun) -> list[str]:
    starts = opened.run.shard_starts
    there = sum(starts[shard + 1] - starts[shard] for shard in opened.shards)
    said, planned = [], opened.run.num_samples
    if there < planned:
        said.append(
            f"{opened.letter} is incomplete: {there:,} of {planned:,} samples are there; finish it "
            "with the same `evaluator run` command"
        )
    if failed := there - int(opened.present.sum()):
        without = count_of(failed, "sample has", "samples have")
        said.append(f"{opened.letter}: {without} no image, as the model failed")
    if not opened.has_settings:
        said.append(
            f"init/config.yaml of {opened.letter} cannot be read: its settings are not known, nor "
            "in what they differ"
        )
    return said


def _no_pairs(baseline: OpenedRun, other: OpenedRun, joined: int) -> Refusal:
    if joined:
        why = f"expected samples with an image in both, got none among {joined:,} of the same name"
        return Refusal(SAMPLES, f"{why}; finish both runs with their `evaluator run` commands")
    mine, theirs = (
        _named(each.run.plan_column("key").slice(0, 4).to_pylist()[:1]) or "none"
        for each in (baseline, other)
    )
    return Refusal(
        SAMPLES,
        f"expected prompts of the same keys in both, got none: {baseline.letter} has {mine}, …, "
        f"{other.letter} has {theirs}, …; run both on one file of prompts",
    )
