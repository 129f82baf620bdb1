"""Seconds by stage and batch: whose they are, what they add up to, and which samples were slow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from evaluator.records import Prompt, Sample, Shard
from evaluator.report.batches import batches
from evaluator.report.scores import OF_BATCH
from evaluator.report.survey import survey
from evaluator.runner.commit import Circumstances, timings_table
from evaluator.runner.embedding import Embedder
from evaluator.runner.shard import ShardMaker, ShardResult
from tests.runner.conftest import run_here
from tests.runner.custom_models import Noise, Picky

AROUND = Circumstances("node:1", 0, "cpu", 1, 4, "none")


def samples_of(first: int, num: int) -> tuple[Sample, ...]:
    """Two images of each prompt."""
    return tuple(Sample(i, f"k{i // 2}", i % 2, i) for i in range(first, first + num))


def made(maker: ShardMaker, first: int = 0, num: int = 10) -> ShardResult:
    samples = samples_of(first, num)
    prompts = [Prompt(sample.key, sample.key) for sample in samples]
    return maker.make(Shard(first // num, samples), prompts, lambda done: None)


def maker(model: Any = None, *, encoders: Any, embed_in: int = 3) -> ShardMaker:
    extractor = Picky(device="cpu", dtype="float32", refuse="", marker="")
    embedder = Embedder("picky", extractor, embed_in)
    return ShardMaker(
        model or Noise(device="cpu"), [embedder], [], batch_size=4, images="none", encoders=encoders
    )


@pytest.fixture
def encoders():
    with ThreadPoolExecutor(1) as threads:
        yield threads


def rows_of(result: ShardResult) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for row in timings_table(result, AROUND).to_pylist():
        found[row["stage"]].append(row)
    return found


@pytest.mark.parametrize("embed_in", [1, 3, 4, 16])
def test_the_batches_of_a_stage_hold_each_row_of_the_shard_once_in_order(encoders, embed_in):
    result = made(maker(encoders=encoders, embed_in=embed_in), first=20)
    found = rows_of(result)
    assert [row["samples"] for row in found["generate"]] == [4, 4, 2]
    sizes = [min(embed_in, 10 - i) for i in range(0, 10, embed_in)]
    assert [row["samples"] for row in found["embed:picky"]] == sizes, "its own batches"
    assert [row["samples"] for row in found["tokenize"]] == [10]
    for stage in found.values():
        first = 0
        for row in stage:
            sample = result.shard.samples[first]
            assert (row["key"], row["image_index"]) == (sample.key, sample.image_index)
            first += row["samples"]
        assert first == 10


def test_only_the_first_batch_that_a_worker_makes_is_its_first(encoders):
    worker = maker(encoders=encoders)
    first, second = (rows_of(made(worker, first=first)) for first in (0, 10))
    marks = {stage: [row["first_of_worker"] for row in rows] for stage, rows in first.items()}
    assert marks["generate"] == [True, False, False]
    assert marks["embed:picky"] == [True, False, False, False]
    assert not any(row["first_of_worker"] for rows in second.values() for row in rows)


class FitsAtFirst(Noise):
    """Two calls of four images find the memory they need, later ones do not."""

    num_calls = 0

    def generate(self, prompts: Sequence[Prompt], *rest: Any) -> list[Tensor]:
        self.num_calls += 1
        if len(prompts) > 2 and self.num_calls > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().generate(prompts, *rest)


def test_a_batch_that_did_not_fit_keeps_its_bounds_and_alone_says_how_it_went(encoders):
    model = FitsAtFirst(device="cpu")
    table = timings_table(made(maker(model, encoders=encoders), num=16), AROUND)
    found = batches(table, 0, 16)
    assert model.num_calls == 2 + 1 + 2 + 2
    assert [(b.first, b.samples, b.passes_of) for b in found] == [
        (0, 4, 4), (4, 4, 4), (8, 4, 2), (12, 4, 2),
    ]  # fmt: skip


def test_the_slowest_samples_are_those_whose_prompts_take_the_model_longest(configured, tmp_path):
    log = tmp_path / "log"
    told = {"digit-0012": 1.0, "digit-0019": 0.5}
    model = {
        "kind": "custom", "target": "tests.runner.custom_models:Slow",
        "options": {"seconds": told, "log": str(log)},
    }  # fmt: skip
    config = configured(
        model=model, prompts={"limit": 7}, features=[], metrics=[], probes=None, references=None,
        runtime={"shard_size": 6, "batch_size": 2},
    )  # fmt: skip
    run = run_here(config, tmp_path / "run", allow_code=True).run
    took: dict[str, float] = {}
    for line in log.read_text().splitlines():
        key, seconds = line.split()
        took[key] = float(seconds)
    assert len(took) == 7, "a batch is the two images of a prompt"

    (tmp_path / "pictures").mkdir()
    found = survey(run, tmp_path / "pictures")
    slowest = found.timings.batches.found()
    assert [[name for name, _ in each.names] for each in slowest[:2]] == [
        ["digit-0012"] * 2, ["digit-0019"] * 2,
    ]  # fmt: skip
    assert {each.names[0][0] for each in slowest} == set(took)
    for each in slowest:
        measured = took[each.names[0][0]]
        assert each.batch.seconds >= measured >= told.get(each.names[0][0], 0.0)
        assert each.batch.each == each.batch.seconds / 2
    # Every sample has its batch's number, and together they are what the stage took.
    values = found.scores.columns["timings.parquet", OF_BATCH].values
    keys = run.plan_column("key").to_pylist()
    of_batch = {each.names[0][0]: each.batch.each for each in slowest}
    assert values.tolist() == [of_batch[key] for key in keys]
    generated = found.timings.by_stage["generate"]
    assert values.sum() == pytest.approx(generated.seconds, rel=1e-12)
    assert generated.samples == len(keys)
    firsts = [each for each in slowest if each.batch.first_of_worker]
    assert [each.names[0] for each in firsts] == [(keys[0], 0)]
