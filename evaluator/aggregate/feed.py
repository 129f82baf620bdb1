"""Filling a metric with the rows of a run, of its reference, and of a held-out set."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evaluator.aggregate.asked import Asked, AskedMetric, CustomPlan
from evaluator.aggregate.features import FeatureReader, Rows, prompt_numbers, share
from evaluator.aggregate.tags import Group, Values, tag_values
from evaluator.distributed import World
from evaluator.errors import MetricError
from evaluator.store.rundir import RunDirectory

if TYPE_CHECKING:
    from evaluator.metrics.published import ReferenceMoments

MAX_NAMED = 5
"""Samples that an error names one by one."""
MOST_SHARED = 2
"""References whose moments are kept: at 2,048 features one takes 34 MB."""


class Fed(NamedTuple):
    """A metric that has seen this process's rows."""

    metric: Any
    by_moments: bool
    """Whether published moments stand for the reference's samples."""
    remarks: list[str]
    """What a reader of its number should know."""


class Placement(NamedTuple):
    """Which samples of a plan are fed, and where they stand among those of two runs."""

    members: NDArray[np.bool_]
    """Whether a sample of the plan is fed."""
    positions: NDArray[np.int64]
    """Its place among all that are; of the others a place after the last."""
    clusters: NDArray[np.int64]
    """Number of its prompt."""


@dataclass
class Feed:
    """What the metrics of one run are fed with, in this process's part of the plan."""

    run: RunDirectory
    asked: Asked
    world: World
    group: Any
    """The process group that states are synchronized over; None alone."""
    placement: Placement | None = None
    """Feed these samples of the run only, placed like this; None feeds all in plan order."""
    rows_at_once: int = 0
    """Rows that shards are put together to before a metric sees them; 0 feeds shard by shard."""
    shared: dict[Hashable, Any] | None = None
    """Moments of references that were fed, for all feeds of one process that share it."""
    _published: dict[tuple[str, str], ReferenceMoments] = field(default_factory=dict)
    _tags: dict[tuple[str, str], Values] = field(default_factory=dict)

    def metric(self, asked: AskedMetric, shards: list[int], group: Group | None = None) -> Fed:
        """A metric with this process's rows, ready to compute; `group` leaves out the others."""
        plan = asked.plan
        reader = self._reader(self.run, plan.extractor, self.asked.fingerprints)
        column = reader.column(plan.input)
        metric = plan.build(reader.dim(column))
        metric.process_group = self.group
        # torchmetrics would otherwise synchronize over the default group where there is one.
        metric.distributed_available_fn = lambda: self.group is not None
        own, only = self.placement, group.members if group else None
        if own is not None:
            only = own.members if only is None else own.members & only
        self._update(metric, reader, column, shards, only=only, placement=own)
        remarks: list[str] = []
        by_moments = self._takes_moments(metric, asked)
        for name, mark in ((asked.reference, "real"), (asked.held_out, "held_out")):
            if name is None:
                continue
            if mark == "real" and by_moments:
                moments, said = self._moments(name, asked, column)
                metric.use_reference(moments)
                remarks += said
                if group is not None:
                    remarks.append("published moments have no groups: compared with all of them")
            else:
                remarks += self._compare(metric, asked, name, mark, group)
        return Fed(metric, by_moments, remarks)

    def reference(self, name: str) -> RunDirectory:
        """The run of a reference, complete; MetricError says what is missing."""
        place = self.asked.references[name]
        if place.run is None:
            raise MetricError(
                f"reference '{name}': expected images or a run to take features of, got published "
                f"moments only ({place.moments}), which Fréchet distances alone can use; "
                "add 'source' to it"
            )
        reference = RunDirectory.open(Path(place.run))
        if len(reference.committed()) != reference.num_shards:
            raise MetricError(
                f"reference '{name}': expected all {reference.num_shards} shards, got "
                f"{len(reference.committed())}. Run the same `evaluator run` command again."
            )
        return reference

    def _takes_moments(self, metric: Any, asked: AskedMetric) -> bool:
        """Whether published moments stand for the reference's samples."""
        place = self.asked.references.get(asked.reference or "")
        if place is None or place.moments is None:
            return False
        own = isinstance(asked.plan, CustomPlan)
        return hasattr(metric, "use_reference") if own else asked.takes_moments

    def _compare(
        self, metric: Any, asked: AskedMetric, name: str, mark: str, group: Group | None
    ) -> list[str]:
        """Feed the samples of a reference, or of the held-out set; returns remarks."""
        own = self._reader(self.run, asked.plan.extractor, self.asked.fingerprints)
        column = own.column(asked.plan.input)
        reference = self.reference(name)
        only = None if group is None else self._members(group, reference)
        fingerprint = self.asked.references[name].fingerprints.get(asked.plan.extractor)
        members = None if only is None else only.tobytes()
        place = str(reference.path), asked.plan.extractor, fingerprint, column, members
        shared = (
            self.shared if mark == "real" and getattr(metric, "shares_reference", False) else None
        )
        if shared is not None and place in shared:
            metric.take_reference(shared[place])
        else:
            reader = self._side(reference, asked, name, own.dim(column))
            placement = self._partners(reference) if getattr(metric, "paired", False) else None
            self._update(
                metric, reader, column, reference.committed(), mark=mark, only=only,
                placement=placement,
            )  # fmt: skip
            if shared is not None:
                while len(shared) >= MOST_SHARED:
                    del shared[next(iter(shared))]
                shared[place] = metric.fed_reference()
        if group is None or only is not None:
            return []
        what = "the reference" if mark == "real" else "the held-out set"
        return [f"{what} has no tag '{group.tag}': compared with all of its samples"]

    def _partners(self, reference: RunDirectory) -> Placement:
        """All samples of a reference, at the places of the run's samples they belong to."""
        everyone = np.ones(reference.num_samples, np.bool_)
        places = _places(reference, self.run)
        if self.placement is not None:
            after = self.run.num_samples + np.arange(len(places))
            own = places < self.run.num_samples
            within = places[own]
            places[own] = np.where(
                self.placement.members[within], self.placement.positions[within], after[own]
            )
        return Placement(everyone, places, prompt_numbers(reference))

    def _members(self, group: Group, reference: RunDirectory) -> NDArray[np.bool_] | None:
        place = (str(reference.path), group.tag)
        if place not in self._tags:
            self._tags[place] = tag_values(reference, reference.committed(), group.tag)
        return group.members_among(self._tags[place], reference.num_samples)

    def _moments(
        self, name: str, asked: AskedMetric, column: str
    ) -> tuple[ReferenceMoments, list[str]]:
        """The published moments of a reference, and remarks.

        Raises MetricError where they are of another extractor.
        """
        from evaluator.metrics.published import read_moments

        path = Path(str(self.asked.references[name].moments))
        place = (str(path), column)
        if place not in self._published:
            self._published[place] = read_moments(path, spatial=column == "spatial")
        moments, extractor = self._published[place], asked.plan.extractor
        features = self.asked.fingerprints[extractor]
        # what the network is counts; what a codec did to the images is said beside the number
        own = self._reader(self.run, extractor, self.asked.fingerprints).extractor_fingerprint
        if moments.fingerprint is None:
            return moments, [
                f"{path.name} does not say what it was computed with; the number means something "
                f"only if that was '{extractor}' with these weights and this resize"
            ]
        if moments.fingerprint != own:
            raise MetricError(
                f"{path}: expected moments of the run's '{extractor}' (fingerprint {own[:12]}), "
                f"got those of fingerprint {moments.fingerprint[:12]}; compute them with the same "
                "weights, resize and dtype"
            )
        if (moments.features_fingerprint or own) != features:
            return moments, [
                f"the images of the run and those behind {path.name} were kept by different "
                "codecs, a lossy one among them, or their features at another precision: the "
                "difference is part of this number"
            ]
        return moments, []

    def _side(self, run: RunDirectory, asked: AskedMetric, name: str, dim: int) -> FeatureReader:
        """The reader of a reference; raises MetricError when its features are of another kind."""
        extractor = asked.plan.extractor
        reader = self._reader(run, extractor, self.asked.references[name].fingerprints)
        column = reader.column(asked.plan.input)
        if reader.dim(column) != dim:
            raise MetricError(
                f"reference '{name}': expected {dim} numbers a sample from '{extractor}' "
                f"(fingerprint {self.asked.fingerprints[extractor][:8]}), got {reader.dim(column)} "
                f"(fingerprint {reader.fingerprint[:8]}). Use one extractor for both."
            )
        return reader

    def _reader(
        self, run: RunDirectory, extractor: str, fingerprints: Mapping[str, str]
    ) -> FeatureReader:
        if extractor not in fingerprints:
            raise MetricError(
                f"expected features of '{extractor}', got those of "
                f"{', '.join(sorted(fingerprints)) or 'no extractor'}. Add '{extractor}' to "
                "features."
            )
        return FeatureReader(run, extractor, fingerprints[extractor])

    def _update(
        self,
        metric: Any,
        reader: FeatureReader,
        column: str,
        shards: list[int],
        *,
        mark: str | None = None,
        only: NDArray[np.bool_] | None = None,
        placement: Placement | None = None,
    ) -> None:
        """Feed this process's share: the samples `only` marks, placed where `placement` says."""
        import torch

        parts = reader.read(column, share(shards, self.world.rank, self.world.size))
        for rows in _put_together(parts, self.rows_at_once):
            keep = slice(None) if only is None else np.flatnonzero(only[rows.positions])
            _require_finite(rows, reader)
            positions, clusters = rows.positions, rows.clusters
            if placement is not None:
                positions, clusters = placement.positions[positions], placement.clusters[positions]
            metric.update(
                torch.from_numpy(np.array(rows.values[keep])),
                torch.from_numpy(positions[keep]),
                torch.from_numpy(clusters[keep]),
                **({mark: True} if mark else {}),
            )


def _put_together(parts: Iterator[Rows], at_least: int) -> Iterator[Rows]:
    """The same rows, in fewer parts."""
    waiting: list[Rows] = []
    for rows in parts:
        waiting.append(rows)
        if sum(len(part.positions) for part in waiting) >= at_least:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: list[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return Rows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _require_finite(rows: Rows, reader: FeatureReader) -> None:
    """Raise MetricError naming the samples whose features are NaN or infinite."""
    finite = np.isfinite(rows.values.reshape(len(rows.values), -1)).all(axis=1)
    if finite.all():
        return
    bad = rows.positions[~finite]
    plan = reader.run.plan.take(bad[:MAX_NAMED])
    named = ", ".join(
        f"{key}[{index}]"
        for key, index in zip(
            plan.column("key").to_pylist(), plan.column("image_index").to_pylist(), strict=True
        )
    )
    more = f" and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
    raise MetricError(
        f"'{reader.extractor}' in {reader.run.path}: expected finite numbers, got NaN or infinity "
        f"for {named}{more}. With dtype float16 the network may overflow: use float32 or bfloat16."
    )


def _places(reference: RunDirectory, run: RunDirectory) -> NDArray[np.int64]:
    """For each sample of `reference`, the place of the same (key, image index) in `run`.

    Those that the run does not have are placed after its last sample, where they pair with none.
    """
    theirs, ours = (_names(directory.plan) for directory in (reference, run))
    found = pc.fill_null(pc.index_in(theirs, value_set=ours), -1).to_numpy(zero_copy_only=False)
    after = run.num_samples + np.arange(len(found))
    return np.where(found >= 0, found, after).astype(np.int64)


def _names(plan: pa.Table) -> pa.Array:
    indices = plan.column("image_index").cast(pa.string())
    return pc.binary_join_element_wise(plan.column("key"), indices, "/").combine_chunks()
