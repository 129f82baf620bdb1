"""`open_run`: one run, read as it is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evaluator.aggregate.stored import read_numbers
from evaluator.aggregate.summary import MetricRecord, Summary
from evaluator.errors import CorruptShardError, InputError
from evaluator.runs import display, images, scores, tables
from evaluator.runs.images import SampleImage
from evaluator.store import schemas, settings
from evaluator.store.rundir import RunDirectory
from evaluator.text import plain

if TYPE_CHECKING:
    from PIL.Image import Image

_PROBE = "Add the probe under probes, and run into another directory."


def open_run(path: str | Path) -> Run:
    """Open a run to be read; RunDirectoryError where there is none.

    Nothing is loaded before it is asked for. What others commit meanwhile is seen by a run that
    is opened again.
    """
    return Run(RunDirectory.open(Path(path)))


class Run:
    """One run on disk, to be read.

    Tables are `pyarrow.Table`s in the order of the plan, of the samples that are there: `len(run)`
    of `run.num_planned`. Half precision comes as float32.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory
        """The run's directory, for what is not offered here."""

    @property
    def path(self) -> Path:
        """Where the run is."""
        return self.directory.path

    @cached_property
    def name(self) -> str:
        """The configuration's name, on one line and without control characters."""
        try:
            said = self.config.get("name")
        except Exception:  # a run without its configuration still has tables
            said = None
        return plain(said or self.path.resolve().name, limit=200)

    # -- how much there is --------------------------------------------------------------------

    @property
    def num_planned(self) -> int:
        """Samples planned."""
        return self.directory.num_samples

    def __len__(self) -> int:
        """Samples that are there, those with an error among them."""
        starts = self.directory.shard_starts
        shards = [i for i in self.directory.committed() if i < self.directory.num_shards]
        return sum(starts[i + 1] - starts[i] for i in shards)

    def __bool__(self) -> bool:
        """True: an empty run is a run."""
        return True

    @property
    def complete(self) -> bool:
        """Whether every planned sample is there."""
        return len(self) == self.num_planned

    # -- tables -------------------------------------------------------------------------------

    @cached_property
    def plan(self) -> pa.Table:
        """One row for each planned sample: shard, key, image_index, seed, content."""
        return self.directory.plan

    @cached_property
    def samples(self) -> pa.Table:
        """One row a sample: key, image_index, seed, prompt, tags, size, error."""
        return tables.read_whole(self.directory, "samples.parquet", kind="samples")

    @cached_property
    def scored_samples(self) -> pa.Table:
        """The samples with a column for each per-sample score: `clip.text_cosine`, `realism`."""
        return scores.with_scores(self.directory, self.samples)

    @property
    def errors(self) -> pa.Table:
        """The samples without an image, and why: rows of `samples` with an error."""
        return self.samples.filter(self.samples.column("error").is_valid())

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """What `table` takes: `samples`, `timings`, and what the probes observed."""
        return tuple(tables.table_names(self.directory))

    def table(self, name: str, *, columns: Sequence[str] | None = None) -> pa.Table:
        """A table by its name: `attention_tokens`, `heatmaps`, … ; InputError where it is not.

        All of it comes into memory; of a large one, name the `columns`.
        """
        tables.require_known(name, self.tables, "the name of a table", self.path, _PROBE)
        return tables.read_whole(self.directory, f"{name}.parquet", kind=name, columns=columns)

    @cached_property
    def attention(self) -> pa.Table:
        """What the attention probe measured, by sample, step, layer and token."""
        return self.table("attention")

    @cached_property
    def latents(self) -> pa.Table:
        """What the latents probe measured, by sample and step."""
        return self.table("latents")

    @cached_property
    def timings(self) -> pa.Table:
        """Seconds by stage and batch, with worker and device; shards of older versions by stage.

        `key` and `image_index` name the first of a batch's `samples`, which follow each other in
        the order of the plan; they are null where the row is of a whole shard.
        """
        return self.table("timings")

    @cached_property
    def schedule(self) -> pa.Table:
        """The noise schedule that was sampled with, by step."""
        path = self.path / "schedule.parquet"
        try:
            return schemas.read_table(path, kind="schedule")
        except FileNotFoundError:
            raise InputError(
                f"{path}: expected a noise schedule, got none: the model has none, or no shard was "
                "generated yet."
            ) from None
        except CorruptShardError as error:
            raise InputError(f"{error} `evaluator schedule RUN` writes one.") from error

    # -- features and scores ------------------------------------------------------------------

    @cached_property
    def extractors(self) -> dict[str, tuple[str, ...]]:
        """Extractor → fingerprints (the first eight characters) of the features that are there."""
        found: dict[str, tuple[str, ...]] = {}
        for file in tables.feature_files(self.directory):
            found[file.extractor] = (*found.get(file.extractor, ()), file.fingerprint)
        return found

    def features(self, extractor: str, *, fingerprint: str | None = None) -> pa.Table:
        """One row a sample: key, image_index, vectors, and the extractor's scores.

        Vectors are FixedSizeLists of float32, null where the sample has an error:
        `np.stack(table.column("features").drop_null().to_numpy())` is (N, D). The table's
        metadata say the whole fingerprint (`evaluator.schema`). Where features of several
        fingerprints are there, those that the metrics used are taken, unless one is named.
        """
        used = {m.extractor: m.fingerprint or "" for m in self._said() if m.extractor}
        file = tables.chosen_features(self.directory, extractor, fingerprint, used)
        return tables.read_whole(self.directory, file.file_name, kind="features")

    @cached_property
    def scored(self) -> tuple[str, ...]:
        """What `scores` takes: metrics that say something of each sample."""
        return tuple(tables.metric_files(self.directory))

    def scores(self, metric: str) -> pa.Table:
        """What a metric says of each sample that it judged: key, image_index, and its scores."""
        remedy = "`evaluator aggregate RUN` writes what its metrics say of each sample."
        tables.require_known(metric, self.scored, "a metric with scores", self.path, remedy)
        return scores.read_scores(self.directory, metric)

    # -- numbers ------------------------------------------------------------------------------

    @cached_property
    def summary(self) -> Summary:
        """All of metrics.json; NumbersError where it is not there or damaged."""
        return read_numbers(self.path).summary()

    @property
    def metrics(self) -> tuple[MetricRecord, ...]:
        """The numbers, with interval, n, direction, fingerprint and warnings."""
        return self.summary.metrics

    def _said(self) -> tuple[MetricRecord, ...]:
        """The numbers, none where they cannot be had."""
        try:
            return self.metrics
        except Exception:  # a fingerprint or a repr is told without them
            return ()

    # -- images -------------------------------------------------------------------------------

    def images(self) -> Iterator[SampleImage]:
        """Each kept image as (key, image_index, image), in the order of the plan."""
        return images.read_images(self.directory)

    def image(self, key: str, image_index: int = 0) -> Image:
        """A kept image; InputError where there is none."""
        return images.read_image(self.directory, key, image_index)

    # -- where it comes from ------------------------------------------------------------------

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration as it was resolved when the run began."""
        return settings.read_config(self.directory)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Versions, git revision, model revision and hash of its weights."""
        return settings.read_provenance(self.directory)

    # -- for people ---------------------------------------------------------------------------

    def __repr__(self) -> str:
        return display.as_text(display.facts(self))

    def _repr_html_(self) -> str:
        return display.as_html(display.facts(self))
