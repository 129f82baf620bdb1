"""A run as `compare` sees it: its plan, the samples that have an image, what was asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from evaluator.aggregate.asked import Asked, request_digest
from evaluator.aggregate.stored import stored_summary
from evaluator.aggregate.summary import MetricRecord, Summary, is_real
from evaluator.comparison.records import RunFacts
from evaluator.errors import ConfigError, EvaluatorError, RunDirectoryError
from evaluator.store.naming import distinct_names
from evaluator.store.rundir import RunDirectory
from evaluator.store.schemas import features_name
from evaluator.store.settings import read_config, read_provenance

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass
class OpenedRun:
    """One run, read as far as it is there."""

    run: RunDirectory
    letter: str
    name: str

    @cached_property
    def shards(self) -> list[int]:
        """The committed shards."""
        return self.run.committed()

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """(planned,) whether a sample is there, and has an image."""
        marks = np.zeros(self.run.num_samples, np.bool_)
        for shard in self.shards:
            errors = self._samples(shard, "error").is_null().to_numpy(zero_copy_only=False)
            start = self.run.shard_starts[shard]
            marks[start : start + len(errors)] = errors
        return marks

    def column(self, name: str) -> list[Any]:
        """A column of the samples' tables by place in the plan; None where there is no sample."""
        values: list[Any] = [None] * self.run.num_samples
        for shard in self.shards:
            part = self._samples(shard, name).to_pylist()
            start = self.run.shard_starts[shard]
            values[start : start + len(part)] = part
        return values

    def _samples(self, shard: int, column: str) -> pa.ChunkedArray:
        table = self.run.read(shard, "samples.parquet", kind="samples", columns=[column])
        return table.column(column)

    @cached_property
    def asked(self) -> Asked | None:
        """What the last start asked; None of a run that did not come so far."""
        if not (self.run.path / "asked.json").exists():
            return None
        return Asked.read(self.run)

    @cached_property
    def summary(self) -> Summary | None:
        """What metrics.json says; None where it is not there, cannot be read, or is newer."""
        return stored_summary(self.run.path)

    @cached_property
    def tables_are_current(self) -> bool:
        """Whether the tables of single samples answer what was asked last, for all shards."""
        asked, summary = self.asked, self.summary
        if asked is None or summary is None:
            return False
        starts = self.run.shard_starts
        there = sum(starts[shard + 1] - starts[shard] for shard in self.shards)
        same = summary.request in (None, request_digest(asked.request))
        return same and summary.counts.committed == there

    def asked_like(self, other: Asked) -> Asked:
        """What can be asked of a run that nothing was asked of: what was asked of the other.

        Its features are those whose tables carry the other's fingerprints.
        """
        files = self.run.files(self.shards[0]) if self.shards else None
        known = {}
        for extractor, fingerprint in other.fingerprints.items():
            if files is not None and (files.path / features_name(extractor, fingerprint)).exists():
                known[extractor] = fingerprint
        return replace(other, fingerprints=known)

    def number(self, name: str, extractor: str) -> MetricRecord | None:
        """A number of metrics.json over all samples; None where there is none."""
        for record in self.summary.metrics if self.summary is not None else ():
            if (record.name, record.extractor, record.group) == (name, extractor, None):
                return record
        return None

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """`model` and `generation` of config.yaml, as they stand there."""
        return self._init(read_config)

    @property
    def has_settings(self) -> bool:
        """Whether config.yaml is there and can be read."""
        return bool(self.settings)

    @cached_property
    def is_images(self) -> bool:
        """Whether its images existed already; its plan then names images, not prompts."""
        return bool(_section(self.settings, "model").get("kind") == "images")

    def facts(self) -> RunFacts:
        """Where its numbers come from."""
        model, made = (_section(self.settings, part) for part in ("model", "generation"))
        record = _section(self._init(read_provenance), "model")
        what = model.get("id") or model.get("target") or model.get("source")
        if what is None and self.is_images:
            what = _section(self.settings, "prompts").get("source")
        given = model.get("scheduler")
        scheduler = record.get("scheduler") or _section({"s": given}, "s").get("name")
        weights = record.get("weights_sha256")
        seed, seeds = made.get("seed"), made.get("seeds")
        ranged = seeds.get("range") if isinstance(seeds, Mapping) else None
        return RunFacts(
            letter=self.letter,
            name=self.name,
            path=str(self.run.path),
            model=" ".join(str(part) for part in (model.get("kind"), what) if part),
            revision=_text(record.get("revision") or (weights and str(weights)[:12])),
            scheduler=_text(scheduler),
            steps=None if self.is_images else _whole(made.get("steps")),
            guidance_scale=None if self.is_images else _real(made.get("guidance_scale")),
            height=None if self.is_images else _whole(made.get("height")),
            width=None if self.is_images else _whole(made.get("width")),
            dtype=_text(record.get("dtype") or model.get("dtype")),
            seed=None if self.is_images else _text(ranged or seed),
            images_per_prompt=_whole(made.get("images_per_prompt")),
            n=int(self.present.sum()),
            n_expected=self.run.num_samples,
            fingerprints=dict(self.asked.fingerprints) if self.asked is not None else {},
        )

    def _init(self, read: Callable[[RunDirectory], dict[str, Any]]) -> Mapping[str, Any]:
        """A file of `init/`; what is missing or malformed says nothing."""
        try:
            return read(self.run)
        except EvaluatorError:
            return {}


def open_runs(paths: Sequence[Path]) -> list[OpenedRun]:
    """The runs to compare, the baseline first; all that is wrong with the paths at once."""
    if not 2 <= len(paths) <= len(LETTERS):
        raise ConfigError(
            f"compare: expected 2 to {len(LETTERS)} runs, the baseline first, got {len(paths)}; "
            "name another run directory"
        )
    faults, opened = [], dict[Path, RunDirectory]()
    for path in paths:
        try:
            resolved = path.resolve()
            if resolved in opened:
                faults.append(f"expected different runs, got {path} twice; leave it out once")
            opened[resolved] = RunDirectory.open(path)
        except (RunDirectoryError, OSError) as error:
            faults.append(str(error))
    if len(faults) == 1:
        raise RunDirectoryError(faults[0])
    if faults:
        raise ConfigError("these runs cannot be compared:", tuple(faults))
    names = distinct_names([(path.name or str(path), path) for path in opened])
    return [
        OpenedRun(run, LETTERS[place], name)
        for place, (run, name) in enumerate(zip(opened.values(), names, strict=True))
    ]


def _section(record: Any, name: str) -> Mapping[str, Any]:
    found = record.get(name) if isinstance(record, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, Mapping | list) else str(value)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _real(value: Any) -> float | None:
    return float(value) if is_real(value) else None
