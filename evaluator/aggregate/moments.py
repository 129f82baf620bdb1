"""Moments of a run's features as a file that other evaluators read, and ours as a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluator.aggregate.asked import Asked
from evaluator.aggregate.features import FeatureReader
from evaluator.errors import MetricError
from evaluator.store.rundir import RunDirectory

if TYPE_CHECKING:
    from evaluator.metrics.published import ReferenceMoments

SPATIAL = "spatial"
"""The output that sFID takes; its moments are written beside the others."""


def export_moments(
    run: RunDirectory, path: Path, *, extractor: str | None = None, reference: str | None = None
) -> ReferenceMoments:
    """Write the moments of all features of one extractor, of the run or of one of its references.

    `extractor` may be left out where there is only one. Raises MetricError when there is none, or
    when samples are missing: moments of a part would be taken for those of the whole.
    """
    from evaluator.metrics.published import write_moments

    asked = Asked.read(run)
    fingerprints = asked.fingerprints
    if reference is not None:
        run, fingerprints = _reference(asked, reference)
    if len(run.committed()) != run.num_shards:
        raise MetricError(
            f"{run.path}: expected all {run.num_shards} shards, got {len(run.committed())}. "
            "Finish the run first."
        )
    name = _only(extractor, list(fingerprints), run)
    reader = FeatureReader(run, name, fingerprints[name])
    moments = _moments(reader, reader.column("features"))
    spatial = _moments(reader, SPATIAL) if reader.has(SPATIAL) else None
    write_moments(path, moments, spatial=spatial)
    return moments


def _reference(asked: Asked, name: str) -> tuple[RunDirectory, dict[str, str]]:
    place = asked.references.get(name)
    if place is None or place.run is None:
        known = [n for n, place in asked.references.items() if place.run is not None]
        raise MetricError(
            f"--reference: expected one of {', '.join(known) or 'none'}, got '{name}'."
        )
    return RunDirectory.open(Path(place.run)), dict(place.fingerprints)


def _only(extractor: str | None, known: list[str], run: RunDirectory) -> str:
    if extractor is None and len(known) == 1:
        return known[0]
    if extractor not in known:
        raise MetricError(
            f"{run.path}: expected --extractor to be one of {', '.join(sorted(known)) or 'none'}, "
            f"got {extractor or 'none'}."
        )
    return str(extractor)


def _moments(reader: FeatureReader, column: str) -> ReferenceMoments:
    from evaluator.metrics.moments import Moments
    from evaluator.metrics.published import ReferenceMoments

    total = Moments.empty(reader.dim(column))
    for rows in reader.read(column, reader.run.committed()):
        total = total.merge(Moments.from_features(np.array(rows.values)))
    return ReferenceMoments(
        mean=total.mean.numpy(),
        covariance=total.covariance().numpy(),
        n=total.n,
        fingerprint=reader.extractor_fingerprint,
        features_fingerprint=reader.fingerprint,
        origin=str(reader.run.path),
        extractor=reader.extractor,
    )
