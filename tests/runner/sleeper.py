"""A worker of the real claim loop and commit whose model only sleeps: it starts in half a second.

python -m tests.runner.sleeper RUN --samples 80 --per-shard 8 --batch 2 --seconds 0.01
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from evaluator.distributed import World
from evaluator.errors import EvaluatorError
from evaluator.records import Prompt, Shard
from evaluator.runner.commit import Circumstances, Committer
from evaluator.runner.progress import Progress
from evaluator.runner.shard import ShardResult
from evaluator.runner.shard_work import ShardWork
from evaluator.runner.work import ClaimLoop
from evaluator.stopping import StopRequest, stop_on_signals
from evaluator.store import schemas
from evaluator.store.claims import Claims, Worker
from evaluator.store.rundir import RunDirectory


class SleepyMaker:
    """Makes rows that depend on the sample alone, in constant seconds an image."""

    def __init__(self, batch_size: int, seconds: float) -> None:
        self.batch_size, self.seconds = batch_size, seconds

    def make(
        self, shard: Shard, prompts: list[Prompt], after_batch: Callable[[int], None]
    ) -> ShardResult:
        result = ShardResult(shard, prompts)
        for start in range(0, len(shard.samples), self.batch_size):
            samples = shard.samples[start : start + self.batch_size]
            with result.watch.stage("generate", range(start, start + len(samples))):
                time.sleep(self.seconds * len(samples))
            for sample in samples:
                result.truncated.append(False)
                result.sizes.append((8, 8))
                result.digests.append(hashlib.sha256(f"{sample}".encode()).hexdigest())
                result.errors.append(None)
                result.flaws.append(None)
                result.encoded.append(None)
            after_batch(start + len(samples))
        return result


def create_run(path: Path, samples: int, per_shard: int) -> RunDirectory:
    rows = range(samples)
    columns = [
        pa.array([i // per_shard for i in rows], pa.int32()),
        pa.array([f"k{i:07d}" for i in rows]),
        pa.array([0] * samples, pa.int32()),
        pa.array(list(rows), pa.int64()),
        pa.array(["content"] * samples),
    ]
    return RunDirectory.create(path, {}, pa.table(columns, schema=schemas.PLAN))


def prompts_of(shard: Shard) -> list[Prompt]:
    return [Prompt(sample.key, f"prompt {sample.key}") for sample in shard.samples]


def work(run: RunDirectory, options: argparse.Namespace, stop: StopRequest) -> list[str]:
    """This process's share; returns errors of shards set aside."""
    worker = Worker.current(options.rank)
    claims = Claims(run.claims_folder, worker, lease_seconds=options.lease)
    around = Circumstances(worker.name, options.rank, "cpu", 1, options.batch, "none")
    maker = SleepyMaker(options.batch, options.seconds)
    with Committer(run, claims, around) as committer:
        tasks = ShardWork(
            run=run, claims=claims, maker=lambda: maker,  # type: ignore[arg-type, return-value]
            prompts=prompts_of, committer=committer, stop=stop,
            progress=Progress(run, claims, label="sleeper", speaks=False),
            world=World(options.rank, options.workers),
        )  # fmt: skip
        return ClaimLoop(claims, tasks, stop, options.lease).finish()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=80)
    parser.add_argument("--per-shard", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.01, help="an image")
    parser.add_argument("--lease", type=float, default=60.0)
    parser.add_argument("--grace", type=float, default=20.0)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--begin", type=float, default=0.0, help="seconds since 1970")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    run = create_run(options.run, options.samples, options.per_shard)
    time.sleep(max(0.0, options.begin - time.time()))
    began = time.time()
    try:
        with stop_on_signals(options.grace) as stop:
            errors = work(run, options, stop)
    except EvaluatorError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return error.exit_status
    print(json.dumps({"errors": errors, "began": began, "ended": time.time()}), flush=True)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
