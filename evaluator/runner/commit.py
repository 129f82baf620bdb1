"""Writing and committing shards in a thread, one shard behind the generation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from evaluator.data import sample_name, write_image_tar
from evaluator.durable import explained_in_run
from evaluator.errors import EvaluatorError
from evaluator.runner.shard import ShardResult
from evaluator.store import schemas
from evaluator.store.claims import Claim, Claims
from evaluator.store.rundir import RunDirectory


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What timings are recorded with."""

    worker: str
    rank: int
    device: str
    threads: int
    batch_size: int
    images: str


class Committer:
    """Commits shards in the background; at most one waits while the next is made."""

    def __init__(self, run: RunDirectory, claims: Claims, circumstances: Circumstances) -> None:
        self._run = run
        self._claims = claims
        self._circumstances = circumstances
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._pending: Future[None] | None = None
        self.failures_in_a_row = 0
        """Shards that could not be written, since the last that could."""
        self.last_error = ""

    def __enter__(self) -> Committer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except EvaluatorError:
            if error is None:
                raise
        finally:
            self._thread.shutdown()

    def submit(self, result: ShardResult, claim: Claim) -> None:
        """Commit `result` in the background, after the previous one; raises what that one met."""
        self.wait()
        self._pending = self._thread.submit(self._commit, result, claim)

    def wait(self) -> None:
        """Wait for the shard that is being committed; raises what went wrong with it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _commit(self, result: ShardResult, claim: Claim) -> None:
        staged = self._run.stage(f"{result.shard.name}.{claim.attempt}")
        try:
            rows = write_shard(staged, result, self._circumstances)
            flaws = Counter(flaw for flaw in result.flaws if flaw is not None)
            self._run.note_flaws(result.shard.index, flaws)
            self._run.publish_shard(result.shard.index, staged, rows)
        except EvaluatorError:
            self._run.discard(staged)
            self._claims.release(claim)
            raise
        except Exception as error:
            # The shard's own fault (a value that fits no column): not that of the next one.
            self._run.discard(staged)
            self.last_error = f"{type(error).__name__}: {error}"
            self.failures_in_a_row += 1
            self._claims.fail(claim, self.last_error)
            return
        self.failures_in_a_row = 0
        self._claims.finish(claim, done=len(result.shard.samples))


def write_shard(
    staged: Path, result: ShardResult, circumstances: Circumstances
) -> dict[str, int | None]:
    """Write every table and the images of a shard; returns file name → rows."""
    samples = result.shard.samples
    keys = [sample.key for sample in samples]
    indices = [sample.image_index for sample in samples]
    assert len(result.errors) == len(samples), "every planned sample has its row"
    tables: dict[str, tuple[str, pa.Table]] = {
        "samples.parquet": ("samples", samples_table(result))
    }
    notes: dict[str, dict[str, object]] = {}
    for embedded in result.features:
        fingerprint = embedded.embedder.fingerprint(circumstances.images)
        name = schemas.features_name(embedded.embedder.name, fingerprint)
        tables[name] = ("features", embedded.table(keys, indices))
        notes[name] = embedded.note(fingerprint)
    for name, parts in result.observed.items():
        tables[f"{name}.parquet"] = (name, pa.concat_tables(parts).combine_chunks())
    with result.watch.stage("write", range(len(samples))):
        for name, (kind, table) in tables.items():
            schemas.write_table(table, staged / name, kind=kind, metadata=notes.get(name))
        rows: dict[str, int | None] = {name: t.num_rows for name, (_, t) in tables.items()}
        if circumstances.images != "none":
            write_images(staged / "images.tar", result)
            rows["images.tar"] = None
    timings = timings_table(result, circumstances)
    schemas.write_table(timings, staged / "timings.parquet", kind="timings")
    return {**rows, "timings.parquet": timings.num_rows}


def write_images(path: Path, result: ShardResult) -> None:
    """The kept images as a webdataset tar, in plan order; samples with an error have none."""
    members = []
    for sample, encoded in zip(result.shard.samples, result.encoded, strict=True):
        if encoded is not None:
            content, extension = encoded.result()
            members.append((sample_name(sample.key, sample.image_index), extension, content))
    with explained_in_run("write", path):
        write_image_tar(path, members)


def samples_table(result: ShardResult) -> pa.Table:
    """One row a sample: what it was made from, and what became of it."""
    samples, prompts = result.shard.samples, result.prompts
    columns: dict[str, Sequence[object]] = {
        "key": [sample.key for sample in samples],
        "image_index": [sample.image_index for sample in samples],
        "seed": [sample.seed for sample in samples],
        "prompt": [prompt.text for prompt in prompts],
        "negative_prompt": [prompt.negative_prompt for prompt in prompts],
        "class_label": [prompt.class_label for prompt in prompts],
        "tags": [sorted(prompt.tags.items()) for prompt in prompts],
        "truncated": result.truncated,
        "height": [size and size[0] for size in result.sizes],
        "width": [size and size[1] for size in result.sizes],
        "pixels_sha256": result.digests,
        "error": result.errors,
        "flaw": result.flaws,
    }
    arrays = [pa.array(columns[f.name], f.type) for f in schemas.SAMPLES]
    return pa.table(arrays, schema=schemas.SAMPLES)


def timings_table(result: ShardResult, circumstances: Circumstances) -> pa.Table:
    """Seconds by stage and batch, and the circumstances: the one table that may differ.

    A batch is `samples` rows of the shard, from the one that `key` and `image_index` name. Stages
    are in alphabetical order, their batches in that of the plan, so that those of a stage hold each
    row of the shard once. Seconds of a batch are those of all tries, where the memory did not
    suffice for the first.
    """
    samples = result.shard.samples
    laps = sorted(result.watch.laps.items(), key=lambda item: (item[0][0], item[0][1].start))
    rows = [
        {
            "key": samples[rows.start].key,
            "image_index": samples[rows.start].image_index,
            "stage": stage,
            "seconds": lap.seconds,
            "samples": len(rows),
            "worker": circumstances.worker,
            "rank": circumstances.rank,
            "device": circumstances.device,
            "threads": circumstances.threads,
            "batch_size": circumstances.batch_size,
            "micro_batch": lap.micro_batch,
            "first_of_worker": result.first_of_worker and rows.start == 0,
        }
        for (stage, rows), lap in laps
    ]
    return pa.Table.from_pylist(rows, schema=schemas.TIMINGS)
