"""One pass over a run's committed shards: each is read once, and only what the page shows is kept.

Memory hardly grows with the run: counts, sums, the texts of the first samples, and the values of at
most `MAX_OBSERVED` samples for the curves. Only numbers are kept of every sample: its scores, and
which value its tags have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluator.errors import CorruptShardError
from evaluator.probes.stabilization import COLUMNS as NOISE_COLUMNS
from evaluator.probes.stabilization import NoiseContent
from evaluator.report.batches import batches, seconds_of_samples
from evaluator.report.census import Census, Timings
from evaluator.report.claim_tables import (
    ATTENTION_COLUMNS,
    MAX_SHARDS,
    PAIR_COLUMNS,
    TOKEN_COLUMNS,
    ClaimTables,
)
from evaluator.report.curves import (
    ATTENTION_MEASURES,
    LATENT_MEASURES,
    AttentionCurves,
    LatentCurves,
)
from evaluator.report.heatmaps import COLUMNS as HEAT_COLUMNS
from evaluator.report.heatmaps import LAYER_COLUMNS, MAX_LAYER_BYTES, HeatMaps
from evaluator.report.listing import COLUMNS as SAMPLE_COLUMNS
from evaluator.report.listing import MAX_ROWS, SampleList
from evaluator.report.scores import OF_BATCH, OF_SHARD, Scores
from evaluator.report.text import plain
from evaluator.report.token_steps import FULL_COLUMNS, TokenSteps, layer_steps, token_steps
from evaluator.report.word_pairs import COLUMNS as WORD_PAIR_COLUMNS
from evaluator.report.word_pairs import WordPairs
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory

MAX_OBSERVED = 16_384
"""Samples whose attention and latents enter the curves; of larger runs, evenly spaced shards."""

MAX_PAIR_ROWS = 8_000_000
"""Rows of a shard's `attention_pairs` that are read: every layer and step of long prompts is more
than a gigabyte."""

MAX_FAULTS = 20

_ATTENTION = tuple(dict.fromkeys(("image_index", "token_text", "branch", "note",
                                  *ATTENTION_COLUMNS, *ATTENTION_MEASURES)))  # fmt: skip
_PAIRS = tuple(dict.fromkeys((*WORD_PAIR_COLUMNS, *PAIR_COLUMNS)))
_LATENTS = tuple(dict.fromkeys(("nonfinite", *LATENT_MEASURES, *NOISE_COLUMNS)))


@dataclass
class Survey:
    """What the pass found."""

    census: Census
    samples: SampleList
    scores: Scores
    heat: HeatMaps
    timings: Timings = field(default_factory=Timings)
    first_batches: list[tuple[int, int]] = field(default_factory=list)
    """Position of the first sample, and the number of samples, of each worker's first batch."""
    attention: AttentionCurves = field(default_factory=AttentionCurves)
    latents: LatentCurves = field(default_factory=LatentCurves)
    noise: NoiseContent = field(default_factory=NoiseContent)
    tokens: TokenSteps | None = None
    full: TokenSteps | None = None
    """Layers by step of the first sample that was observed in full."""
    pairs: WordPairs = field(default_factory=WordPairs)
    claims: ClaimTables = field(default_factory=ClaimTables)
    schedule: pa.Table | None = None
    schedule_says: list[str] | None = None
    """What the checks said when the schedule was recorded; None of an older run."""
    every: int = 1
    """Every how manieth committed shard the curves are from."""
    kept_images: bool = False
    """Whether any committed shard kept its images."""
    faults: list[str] = field(default_factory=list)
    """Files that could not be read, and why."""

    def say(self, fault: str) -> None:
        """Note a fault, of the first `MAX_FAULTS`, each once."""
        if len(self.faults) < MAX_FAULTS and fault not in self.faults:
            self.faults.append(fault)


def survey(run: RunDirectory, folder: Path) -> Survey:
    """Read the run; pictures are written into `folder` as they are met."""
    committed = [index for index in run.committed() if index < run.num_shards]
    census = Census(planned=run.num_samples, num_shards=run.num_shards)
    num = run.num_samples
    found = Survey(census, SampleList(num), Scores(num), HeatMaps(folder))
    found.every = _every(run, len(committed))
    of_curves = set(committed[:: found.every])
    of_claims = _spread(committed[:: found.every], MAX_SHARDS)
    found.claims.num_shards = len(of_claims)
    for index in committed:
        samples = _read_shard(run, index, found)
        if samples is not None and index in of_curves:
            _observe(run, index, samples, found, with_claims=index in of_claims)
    found.scores.add_metrics(run, MAX_ROWS, found.say)
    _read_schedule(run.path / "schedule.parquet", found)
    return found


def _spread(indices: list[int], most: int) -> set[int]:
    """At most so many of them, evenly spaced."""
    places = np.linspace(0, len(indices) - 1, min(most, len(indices))).round().astype(int)
    return {indices[place] for place in places}


def _read_schedule(path: Path, found: Survey) -> None:
    if not path.exists():
        return
    try:
        found.schedule = schemas.read_table(path, kind="schedule")
    except CorruptShardError as error:
        found.say(plain(error, limit=500))
        return
    says = schemas.table_note(path).get("warnings")
    if isinstance(says, list):
        found.schedule_says = [plain(line, limit=500) for line in says]


def _every(run: RunDirectory, num_committed: int) -> int:
    size = -(-run.num_samples // max(1, run.num_shards))
    return max(1, -(-num_committed * size // MAX_OBSERVED))


def _read_shard(run: RunDirectory, index: int, found: Survey) -> pa.Table | None:
    """Counts and pictures of a shard; returns its samples."""
    samples = _optional(run, index, "samples", SAMPLE_COLUMNS, found)
    if samples is None:
        return None
    found.census.add(samples)
    start, tar = run.shard_starts[index], run.shard_path(index) / "images.tar"
    found.kept_images = found.kept_images or tar.exists()
    found.samples.add(samples, start)
    found.scores.add_shard(run, index, found.say)
    if found.heat.layers is None:
        _add_layers(run, index, samples, found)
    if found.full is None and _fits(run, index, "attention_full", found):
        full = _optional(run, index, "attention_full", FULL_COLUMNS, found)
        found.full = None if full is None else layer_steps(full, samples)
    if (timings := _optional(run, index, "timings", None, found)) is not None:
        _add_timings(timings, index, samples, start, found)
    if not found.heat.full:
        heat = _optional(run, index, "heatmaps", HEAT_COLUMNS, found)
        if heat is not None and set(HEAT_COLUMNS) <= set(heat.column_names):
            found.heat.add(heat, samples, tar, start)
    return samples


def _add_timings(
    timings: pa.Table, index: int, samples: pa.Table, start: int, found: Survey
) -> None:
    """Seconds of a shard, and of its samples: by batch where the table tells of batches."""
    work, stop = found.timings.add(timings, index), start + samples.num_rows
    made = batches(timings, index, samples.num_rows)
    if made:
        found.scores.add_seconds(start, stop, seconds_of_samples(made), OF_BATCH)
    else:
        found.scores.add_seconds(start, stop, work.each, OF_SHARD)
    found.first_batches += [(start + b.first, b.samples) for b in made if b.first_of_worker]
    found.timings.batches.add(made, samples, listed=not found.samples.num_left_out)


def _observe(
    run: RunDirectory, index: int, samples: pa.Table, found: Survey, *, with_claims: bool
) -> None:
    """What the probes saw of a shard."""
    if (latents := _optional(run, index, "latents", _LATENTS, found)) is not None:
        found.latents.add(latents)
        found.noise.add(latents)
    attention = _optional(run, index, "attention", _ATTENTION, found)
    if attention is None:
        return
    found.attention.add(attention)
    found.tokens = found.tokens or token_steps(attention, samples)
    if found.pairs.full and not with_claims:
        return
    pairs = _pairs(run, index, found)
    if pairs is not None and not found.pairs.full:
        found.pairs.add(pairs, samples)
    if with_claims:
        tokens = _optional(run, index, "attention_tokens", TOKEN_COLUMNS, found)
        if tokens is not None:
            found.claims.add(samples, attention, tokens, pairs)


def _pairs(run: RunDirectory, index: int, found: Survey) -> pa.Table | None:
    """The table `attention_pairs`, unless it is larger than a report can hold."""
    path = run.shard_path(index) / "attention_pairs.parquet"
    try:
        rows = pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException):
        rows = 0  # reading it says what is wrong
    if rows > MAX_PAIR_ROWS:
        reason = f"has {rows:,} rows, more than a report reads ({MAX_PAIR_ROWS:,})"
        found.say(f"{path.name} of shard {index:05d} {reason}: pairs of it are left out")
        return None
    return _optional(run, index, "attention_pairs", _PAIRS, found)


def _add_layers(run: RunDirectory, index: int, samples: pa.Table, found: Survey) -> None:
    """Heat maps by layer, unless the file is larger than a report can hold."""
    if _fits(run, index, "heatmaps_layers", found):
        maps = _optional(run, index, "heatmaps_layers", LAYER_COLUMNS, found)
        if maps is not None and set(LAYER_COLUMNS) <= set(maps.column_names):
            found.heat.add_layers(maps, samples, run.shard_path(index) / "images.tar")


def _fits(run: RunDirectory, index: int, kind: str, found: Survey) -> bool:
    """Whether a table is there and small enough; says where it is not small enough."""
    path = run.shard_path(index) / f"{kind}.parquet"
    size = path.stat().st_size if path.exists() else 0
    if size > MAX_LAYER_BYTES:
        reason = f"has {size >> 20:,} MiB, more than a report reads ({MAX_LAYER_BYTES >> 20})"
        found.say(f"{path.name} of shard {index:05d} {reason}: it is left out")
    return 0 < size <= MAX_LAYER_BYTES


def _optional(
    run: RunDirectory, index: int, kind: str, columns: tuple[str, ...] | None, found: Survey
) -> pa.Table | None:
    """A table of a shard, with those of `columns` that it has; None when it cannot be had."""
    try:
        return run.read(index, f"{kind}.parquet", kind=kind, columns=columns)
    except FileNotFoundError:
        if kind == "samples":
            found.faults.append(f"shard {index:05d} has no samples.parquet")
    except CorruptShardError as error:
        found.say(plain(error, limit=500))
    return None
