"""Making one shard: generate, embed, observe, batch by batch; the result waits to be committed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from evaluator.data import EncodedImage, decode_image, encode_image
from evaluator.errors import GenerationError, NonFiniteError, SampleError
from evaluator.protocols import STANDING
from evaluator.records import Prompt, Sample, Shard
from evaluator.runner.embedding import LOSSLESS, EmbeddedRows, Embedder
from evaluator.runner.memory import MicroBatch
from evaluator.runner.stopwatch import Stopwatch

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.protocols import GenerativeModel, Observation, Probe

OWNER = ["key", "image_index"]
"""The columns that say whose row it is."""
BLACK, NON_FINITE = "black", "non_finite"
"""Flaws of an image: every pixel is 0; NaN or infinity, and so no image at all."""

TELLING = 8
"""So many samples without one finite image, and none before, are probably the model's fault."""


@dataclass
class ShardResult:
    """Everything that one shard's directory will hold, in memory."""

    shard: Shard
    prompts: list[Prompt]
    truncated: list[bool] = field(default_factory=list)
    sizes: list[tuple[int, int] | None] = field(default_factory=list)
    digests: list[str | None] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    flaws: list[str | None] = field(default_factory=list)
    """`black` or `non_finite`, for each sample."""
    encoded: list[Future[EncodedImage] | None] = field(default_factory=list)
    features: list[EmbeddedRows] = field(default_factory=list)
    observed: dict[str, list[pa.Table]] = field(default_factory=dict)
    watch: Stopwatch = field(default_factory=Stopwatch)
    first_of_worker: bool = False
    """Whether its worker made no batch before; that one compiles, and warms up."""


class ShardMaker:
    """Makes shards with one model, its extractors and probes."""

    def __init__(
        self,
        model: GenerativeModel,
        embedders: Sequence[Embedder],
        probes: Sequence[Probe],
        *,
        batch_size: int,
        images: str,
        encoders: Executor,
        warm: bool = False,
    ) -> None:
        """`warm` says that the model has made batches before, for another run."""
        self._model = model
        self._embedders = embedders
        self._probes = probes
        self._batch_size = batch_size
        self._images = images
        self._encoders = encoders
        self._memory = MicroBatch("generating")
        self._has_begun, self._has_worked = warm, False

    def make(
        self, shard: Shard, prompts: list[Prompt], after_batch: Callable[[int], None]
    ) -> ShardResult:
        """Make a shard; `after_batch(done)` is called after each batch and may raise to stop."""
        result = ShardResult(shard, prompts, first_of_worker=not self._has_begun)
        self._has_begun = True
        result.features = [EmbeddedRows(embedder, result.watch) for embedder in self._embedders]
        with result.watch.stage("tokenize", range(len(shard.samples))):
            result.truncated = self._model.truncated(prompts)
        for start in range(0, len(shard.samples), self._batch_size):
            stop = min(start + self._batch_size, len(shard.samples))
            self._make_batch(result, start, stop)
            after_batch(stop)
        return result

    def _make_batch(self, result: ShardResult, start: int, stop: int) -> None:
        made = self._generate(result, range(start, stop))
        images = self._record_images(result, made)
        self._require_some_finite(result)
        for rows in result.features:
            rows.add(images, result.prompts[start:stop])
            if stop == len(result.shard.samples):
                rows.finish()

    def _require_some_finite(self, result: ShardResult) -> None:
        """Raise FloatingPointError where the model, as far as is known, gives nothing but NaN.

        That fails the shard: where the prompts are at fault, others show that the model works,
        and then it is made; where the model is, the next shards fail as well, which ends the run.
        """
        self._has_worked = self._has_worked or any(flaw != NON_FINITE for flaw in result.flaws)
        if len(result.flaws) >= TELLING and not self._has_worked:
            raise FloatingPointError(
                f"expected finite pixels, got NaN or infinity for all of the first "
                f"{len(result.flaws)} samples: {result.errors[0]}"
            )

    def _generate(self, result: ShardResult, rows: range) -> list[Tensor | SampleError]:
        """One batch of images; the tail of a shard is padded by repeating its last sample."""
        samples = result.shard.samples[rows.start : rows.stop]
        prompts = result.prompts[rows.start : rows.stop]
        padding = self._batch_size - len(samples)
        padded_prompts = [*prompts, *[prompts[-1]] * padding]
        padded = [*samples, *[samples[-1]] * padding]

        def part(start: int, stop: int) -> list[Tensor | SampleError]:
            if start >= len(samples):
                return []  # nothing but padding
            with result.watch.stage("generate", rows):
                made, observations = self._watched(padded[start:stop], padded_prompts[start:stop])
            with result.watch.stage("observe", rows):
                # All of them before any is kept: where the memory ends here, the part is repeated.
                seen = [observation.tables() for observation in observations]
                refused = [place for place, image in enumerate(made) if _is_refused(image)]
                for tables in seen:
                    self._collect(result, tables, samples[start:stop], refused)
            return made

        parts = self._memory.split(len(padded), part)
        result.watch.laps["generate", rows].micro_batch = self._memory.size or self._batch_size
        return [image for made in parts for image in made][: len(samples)]

    def _watched(
        self, samples: Sequence[Sample], prompts: Sequence[Prompt]
    ) -> tuple[list[Tensor | SampleError], list[Observation]]:
        """One call of the model under all probes."""
        with ExitStack() as stack:
            positions = [sample.position for sample in samples]
            observations = [
                stack.enter_context(probe.attach(self._model, prompts, positions))
                for probe in self._probes
            ]
            made = self._model.generate(
                prompts, [s.image_index for s in samples], [s.seed for s in samples]
            )
        if len(made) != len(samples):
            raise GenerationError(
                f"expected {len(samples)} images from the model, got {len(made)}: generate() must "
                "return one for each prompt."
            )
        return made, observations

    def _collect(
        self,
        result: ShardResult,
        tables: Mapping[str, pa.Table],
        samples: Sequence[Sample],
        refused: Sequence[int],
    ) -> None:
        """Name the rows by sample; drop those of the padding, and of prompts that were refused.

        What the model made in such a prompt's place, to keep the batch whole, is no sample.
        """
        for name, table in tables.items():
            left_out = () if is_standing(table) else refused
            rows = name_rows(table, samples, left_out=left_out)
            parts = result.observed.setdefault(name, [])
            if not (parts and is_standing(table) and same_rows(parts[-1], rows)):
                parts.append(rows)

    def _record_images(
        self, result: ShardResult, made: Sequence[Tensor | SampleError]
    ) -> list[Tensor | None]:
        """Note each image's size and hash, start encoding it, and return what is to be judged."""
        images: list[Tensor | None] = []
        for image in made:
            if isinstance(image, SampleError):
                result.sizes.append(None)
                result.digests.append(None)
                result.errors.append(str(image))
                result.flaws.append(NON_FINITE if isinstance(image, NonFiniteError) else None)
                result.encoded.append(None)
                images.append(None)
                continue
            # A model of the user's own may leave its images where it made them.
            image, encoded = image.cpu(), None
            if self._images != "none":
                encoded = self._encoders.submit(encode_image, image, self._images)
            if self._images not in LOSSLESS and encoded is not None:
                # What is judged is what is kept: a lossy codec is part of the features.
                image = decode_image(encoded.result()[0])
            result.sizes.append((int(image.shape[-2]), int(image.shape[-1])))
            result.digests.append(hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest())
            result.errors.append(None)
            result.flaws.append(None if bool(image.any()) else BLACK)
            result.encoded.append(encoded)
            images.append(image)
        return images


def _is_refused(image: Tensor | SampleError) -> bool:
    """Whether the prompt was at fault; pixels that are not finite are the model's own."""
    return isinstance(image, SampleError) and not isinstance(image, NonFiniteError)


def name_rows(
    table: pa.Table, samples: Sequence[Sample], *, left_out: Sequence[int] = ()
) -> pa.Table:
    """Replace the column `sample` (place in the batch) by key and image index.

    Rows of the padding, whose place is past the last sample, are dropped, and those of the places
    `left_out`. Dictionaries become plain strings: the file encodes them again, in the order of the
    rows.
    """
    import pyarrow.compute as pc

    place = table.column("sample").combine_chunks()
    unwanted = pc.is_in(place, pa.array(left_out, place.type))
    keep = pc.and_(pc.less(place, len(samples)), pc.invert(unwanted))
    table, place = table.filter(keep), place.filter(keep)
    keys = pa.array([sample.key for sample in samples], pa.string())
    indices = pa.array([sample.image_index for sample in samples], pa.int32())
    columns: dict[str, Any] = {"key": keys.take(place), "image_index": indices.take(place)}
    for name in table.column_names:
        if name == "sample":
            continue
        column = table.column(name)
        columns[name] = column.cast(pa.string()) if _is_dictionary(column.type) else column
    return pa.table(columns)


def is_standing(table: pa.Table) -> bool:
    """Whether a table holds until another takes its place."""
    metadata = table.schema.metadata or {}
    return all(metadata.get(k.encode()) == v.encode() for k, v in STANDING.items())


def same_rows(one: pa.Table, other: pa.Table) -> bool:
    """Whether two tables differ in whose rows they are at most."""
    equal: bool = one.drop_columns(OWNER).equals(other.drop_columns(OWNER))
    return equal


def _is_dictionary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind))
