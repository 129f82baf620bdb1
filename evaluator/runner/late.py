"""Tables added to a finished run: another extractor over the images that were kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluator.data import decode_image, read_image_tar, sample_name
from evaluator.errors import CorruptShardError, InputError, SampleError
from evaluator.models.images import ImagesModel
from evaluator.records import Prompt, Shard
from evaluator.runner.embedding import EmbeddedRows, Embedder
from evaluator.runner.progress import Progress
from evaluator.runner.work import give_back
from evaluator.stopping import StopRequest
from evaluator.store import schemas
from evaluator.store.claims import Claim, Claims
from evaluator.store.committed import MEND
from evaluator.store.rundir import RunDirectory

if TYPE_CHECKING:
    import pyarrow as pa
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
    prompts_of: PromptsOf
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

    def pending(self) -> list[str]:
        """Committed shards without the table, as tasks."""
        missing = [
            index
            for index in self.run.committed()
            if not (self.run.shard_path(index) / self.file_name).exists()
        ]
        for index in missing:
            # Not late, but lost: the shard is made again rather than mended.
            self.run.files(index).require_never_there(self.file_name)
        if missing and self.images == "none" and self.source is None:
            raise InputError(
                f"{self.run.path}: expected kept images to compute '{self.embedder.name}' from, "
                "got a run with runtime.images: none. Run again into another directory with "
                "runtime.images: png, or with the extractor from the start."
            )
        return [f"{index:05d}-{self.file_name}" for index in missing]

    def is_done(self, task: str) -> bool:
        """Whether the table is there."""
        return (self.run.shard_path(self._index(task)) / self.file_name).exists()

    def describe(self, task: str) -> str:
        """`features-clip-0123abcd.parquet of shard 00007`."""
        return f"{self.file_name} of shard {task[: task.index('-')]}"

    def prepare(self) -> None:
        """The extractor is there already: its fingerprint names the table."""

    def work(self, task: str, claim: Claim) -> bool:
        """Embed the images of one shard and link the table; returns False when it failed."""
        held = claim
        shard = self.run.shard(self._index(task))

        def after_batch(done: int) -> None:
            nonlocal held
            held = self.claims.renew(held, done=done)
            self.stop.raise_if_set()

        try:
            with self.stop.interruptible():
                table, note = self._table(shard, after_batch)
            staged = self.run.stage(f"{shard.name}.late") / self.file_name
            schemas.write_table(table, staged, kind="features", metadata=note)
            self.run.publish_late_table(shard.index, staged)
        except BaseException as error:
            message = give_back(self.claims, held, error)
            self.progress.say(f"{self.describe(task)} failed: {message}")
            return False
        self.claims.finish(held, done=len(shard.samples))
        return True

    def _index(self, task: str) -> int:
        return int(task[: task.index("-")])

    def _table(
        self, shard: Shard, after_batch: Callable[[int], None]
    ) -> tuple[pa.Table, dict[str, object]]:
        """The shard's table, and what its metadata says."""
        rows = EmbeddedRows(self.embedder)
        prompts = self.prompts_of(shard)
        for start, images in self._batches(shard, prompts):
            rows.add(images, prompts[start : start + len(images)])
            after_batch(start + len(images))
        rows.finish()
        table = rows.table(
            [sample.key for sample in shard.samples],
            [sample.image_index for sample in shard.samples],
        )
        return table, rows.note(self.fingerprint)

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
        path = self.run.files(shard.index).verified_images()
        members = read_image_tar(path)
        for sample, has_image in zip(shard.samples, wanted, strict=True):
            if not has_image:
                continue
            expected = sample_name(sample.key, sample.image_index)
            member = next(members, None)
            if member is None or member.key != expected:
                got = "the end of the tar" if member is None else f"'{member.key}'"
                raise CorruptShardError(
                    f"{path}: expected the image '{expected}', got {got}. {MEND}", path.parent
                )
            yield decode_image(member.data)
