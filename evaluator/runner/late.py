"""Tables added to a finished run: another extractor over the images that were kept."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluator.data import decode_image, read_image_tar, sample_name
from evaluator.distributed import StopRequest
from evaluator.errors import (
    CorruptShardError,
    EvaluatorError,
    GenerationError,
    InputError,
    SampleError,
)
from evaluator.models.images import ImagesModel
from evaluator.records import Prompt, Shard
from evaluator.runner.embedding import EmbeddedRows, Embedder
from evaluator.runner.progress import Progress
from evaluator.store import schemas
from evaluator.store.claims import MAX_ATTEMPTS, Claims, is_set_aside
from evaluator.store.rundir import RunDirectory

if TYPE_CHECKING:
    from torch import Tensor

PromptsOf = Callable[[Shard], list[Prompt]]
"""One prompt for each sample of a shard, in order."""


@dataclass
class LateFeatures:
    """One extractor over the kept images of every shard that lacks its table."""

    run: RunDirectory
    claims: Claims
    embedder: Embedder
    images: str
    stop: StopRequest
    progress: Progress
    source: ImagesModel | None = None
    """Reads the images of a run of kind `images`, which keeps none."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the features, codec included."""
        return self.embedder.fingerprint(self.images)

    @property
    def file_name(self) -> str:
        """Name of the table in each shard."""
        return schemas.features_name(self.embedder.name, self.fingerprint)

    def missing(self) -> list[int]:
        """Committed shards without the table."""
        return [
            index
            for index in self.run.committed()
            if not (self.run.shard_path(index) / self.file_name).exists()
        ]

    def finish(self, prompts_of: PromptsOf) -> None:
        """Embed until no shard lacks the table, sharing the work with other processes."""
        if self.missing() and self.images == "none" and self.source is None:
            raise InputError(
                f"{self.run.path}: expected kept images to compute '{self.embedder.name}' from, "
                "got a run with runtime.images: none. Run again into another directory with "
                "runtime.images: png, or with the extractor from the start."
            )
        while missing := self.missing():
            worked = False
            for index in missing:
                self.stop.raise_if_set()
                worked |= self._embed(index, prompts_of)
            if not worked:
                self._raise_if_stuck(missing)
                self.stop.raise_if_set()
                time.sleep(1.0)

    def _task(self, index: int) -> str:
        return f"{index:05d}-{self.file_name}"

    def _raise_if_stuck(self, missing: list[int]) -> None:
        """Raise GenerationError when every missing table was given up."""
        stuck = [index for index in missing if is_set_aside(self.claims.of(self._task(index)))]
        if len(stuck) == len(missing):
            raise GenerationError(
                f"{self.file_name}: workers ended {MAX_ATTEMPTS} times at one point of shards "
                f"{stuck[:5]}. Mend the cause, delete {self.run.claims_folder}/*-{self.file_name}.*"
                " and run the same command again."
            )

    def _embed(self, index: int, prompts_of: PromptsOf) -> bool:
        path = self.run.shard_path(index) / self.file_name
        claim = None if path.exists() else self.claims.take(self._task(index))
        if claim is None:
            return False
        shard = self.run.shard(index)
        try:
            rows = EmbeddedRows(self.embedder)
            prompts = prompts_of(shard)
            for start, images in self._batches(shard, prompts):
                rows.add(images, prompts[start : start + len(images)])
                claim = self.claims.renew(claim, done=start + len(images))
                self.stop.raise_if_set()
            rows.finish()
            table = rows.table(
                [sample.key for sample in shard.samples],
                [sample.image_index for sample in shard.samples],
            )
            staged = self.run.stage(f"{shard.name}.late") / self.file_name
            note = rows.note(self.fingerprint)
            schemas.write_table(table, staged, kind="features", metadata=note)
            self.run.publish_late_table(index, staged)
        except BaseException:
            with contextlib.suppress(EvaluatorError):
                self.claims.release(claim)
            raise
        self.claims.finish(claim, done=len(shard.samples))
        return True

    def _batches(
        self, shard: Shard, prompts: Sequence[Prompt]
    ) -> Iterator[tuple[int, list[Tensor | None]]]:
        """The shard's images, a batch at a time, so that few are in memory."""
        errors = self.run.read(shard.index, "samples.parquet", kind="samples", columns=["error"])
        wanted = [error is None for error in errors.column("error").to_pylist()]
        kept = self._kept(shard, wanted) if self.source is None else None
        for start in range(0, len(shard.samples), self.embedder.batch_size):
            stop = min(start + self.embedder.batch_size, len(shard.samples))
            if kept is not None:
                yield start, [next(kept) if wanted[i] else None for i in range(start, stop)]
            else:
                assert self.source is not None
                made = self.source.generate(prompts[start:stop], (), ())
                yield start, [None if isinstance(m, SampleError) else m for m in made]

    def _kept(self, shard: Shard, wanted: Sequence[bool]) -> Iterator[Tensor]:
        path = self.run.shard_path(shard.index) / "images.tar"
        members = read_image_tar(path)
        for sample, has_image in zip(shard.samples, wanted, strict=True):
            if not has_image:
                continue
            expected = sample_name(sample.key, sample.image_index)
            member = next(members, None)
            if member is None or member.key != expected:
                got = "the end of the tar" if member is None else f"'{member.key}'"
                raise CorruptShardError(
                    f"{path}: expected the image '{expected}', got {got}. Delete the shard's "
                    "directory and run the same command again."
                )
            yield decode_image(member.data)
