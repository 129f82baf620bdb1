"""Slowest samples: a batch's seconds over its images, and plain words where batches are unknown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from evaluator.export.query import Query
from evaluator.report import write_report
from evaluator.report.batches import NUM_SLOWEST, Batch, Slowest, batches, seconds_of_samples
from evaluator.report.census import Timings
from evaluator.report.scores import OF_BATCH, OF_SHARD
from evaluator.runs import find_runs, open_run
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory
from tests.report.conftest import prompt, samples_table, timings_table
from tests.report.test_page import outline

Make = Callable[..., RunDirectory]


def timings(counts: list[int], seconds: list[float], **changes: Any) -> pa.Table:
    """The generation of one shard, in batches of these sizes."""
    rows, first = [], 0
    for count, each in zip(counts, seconds, strict=True):
        rows.append({
            "key": f"k{first:04d}", "image_index": 0, "stage": "generate", "seconds": each,
            "samples": count, "worker": "node:1", "rank": 0, "device": "cpu", "threads": 1,
            "batch_size": max(counts), "micro_batch": max(counts), "first_of_worker": False,
        } | changes)  # fmt: skip
        first += count
    return pa.Table.from_pylist(rows, schema=schemas.TIMINGS)


def scores_of(folder: Path) -> dict[str, list[float | None]]:
    """Score → the number of each sample, as the page's script gets them."""
    (content,) = outline(folder).texts["data"]
    return {score["name"]: score["values"] for score in json.loads(content)["scores"]}


def test_batches_add_up_to_the_stage_and_full_ones_to_the_samples() -> None:
    seconds = np.random.default_rng(0).gamma(2.0, size=32)
    table = timings([8] * 32, seconds.tolist())
    found, whole = batches(table, 0, 256), Timings()
    whole.add(table, 0)
    assert whole.by_stage["generate"].seconds == pytest.approx(seconds.sum(), rel=1e-12)
    assert whole.by_stage["generate"].samples == 256
    values = seconds_of_samples(found)
    assert values.tolist() == [each / 8 for each in seconds for _ in range(8)]
    assert values.sum() == pytest.approx(seconds.sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("samples", "micro_batch", "images"),
    [(16, 16, 16), (14, 16, 16), (2, 16, 16), (2, 4, 4), (14, 6, 16), (7, 6, 12), (5, None, 16)],
)
def test_what_a_batch_was_filled_up_with_counts_as_images(
    samples: int, micro_batch: int | None, images: int
) -> None:
    table = timings([samples], [8.0], batch_size=16, micro_batch=micro_batch)
    (batch,) = batches(table, 3, samples)
    assert (batch.images, batch.each) == (images, 8.0 / images)
    said = "; ".join(batch.remarks)
    assert (f"filled up from {samples}" in said) == (samples < images)
    assert ("the memory did not suffice" in said) == ((micro_batch or 16) < images)


def test_the_slowest_are_those_that_sorting_everything_finds() -> None:
    rng = np.random.default_rng(1)
    slowest, everything = Slowest(), list[Batch]()
    samples = samples_table(range(40))
    for shard in range(12):
        # Few different numbers, so that many are equal: then the first of the plan is the slower.
        found = batches(timings([4] * 10, rng.integers(1, 9, 10).tolist()), shard, 40)
        everything += found
        slowest.add(found, samples, listed=True)
    expected = sorted(everything, key=lambda b: (-b.each, b.shard, b.first))[:NUM_SLOWEST]
    assert [each.batch for each in slowest.found()] == expected
    assert all(each.names[0] == (f"k{each.batch.first:04d}", 0) for each in slowest.found())
    assert (slowest.num_shards, slowest.num_batches) == (12, 120)


@pytest.mark.parametrize(
    "table",
    [
        timings_table(range(8), 0, older=True),
        timings([4, 3], [1.0, 1.0]),
        timings([8, 0], [1.0, 1.0]),
        timings([9, -1], [1.0, 1.0]),
    ],
    ids=["older", "too few", "empty", "negative"],
)
def test_batches_that_are_not_told_or_do_not_add_up_are_none(table: pa.Table) -> None:
    complete = pa.concat_tables([schemas.TIMINGS.empty_table(), table], promote_options="default")
    assert batches(complete, 0, 8) == []


def test_the_page_lists_and_links_the_slowest_and_marks_first_batches(make_run: Make) -> None:
    folder = write_report(make_run(probes=False)).parent
    page = outline(folder)
    links = [link["href"] for link in page.named("a") if "#sample=" in link.get("href", "")]
    order = [i for first in (16, 8, 0, 12, 4) for i in range(first, first + 4)]
    assert links[-20:] == [f"#sample=k{i:04d}/0" for i in order], "12, 8, 4, 4 and 2 s a batch"
    values = scores_of(folder)[OF_BATCH]
    assert values == [1] * 4 + [0.5] * 4 + [2] * 4 + [1] * 4 + [3] * 4
    assert OF_SHARD not in scores_of(folder)
    assert page.visible.count("first batch of its worker") == 2
    assert "share one number" in page.visible
    assert "older versions" not in page.visible


def test_of_shards_without_batches_the_page_says_so_and_has_the_mean(make_run: Make) -> None:
    folder = write_report(make_run(probes=False, older_timings=(0, 2))).parent
    visible, scores = outline(folder).visible, scores_of(folder)
    assert "Of 2 of 3 shards timings.parquet tells no batches" in visible
    assert scores[OF_BATCH] == [None] * 8 + [2] * 4 + [1] * 4 + [None] * 4
    # All stages together: 5.25 s of 8 samples, and three times as much of 4.
    assert scores[OF_SHARD] == [0.65625] * 8 + [None] * 8 + [3.9375] * 4


def test_a_run_of_an_older_version_is_read_everywhere(make_run: Make) -> None:
    run = make_run(probes=False, older_timings=(0, 1, 2))
    folder = write_report(run).parent
    visible, scores = outline(folder).visible, scores_of(folder)
    assert "Which samples were slow is not known" in visible
    assert "Slowest shards" in visible
    assert OF_SHARD in scores
    assert OF_BATCH not in scores
    opened = open_run(run.path).timings
    assert opened.num_rows == 9
    for name in ("key", "image_index", "first_of_worker"):
        assert opened.column(name).null_count == 9
    assert all(run.files(shard).damage() == {} for shard in range(3))


def test_a_query_over_shards_of_both_kinds_adds_up(make_run: Make) -> None:
    pytest.importorskip("duckdb", reason="NOT TESTED: queries; pip install -e '.[test]'")
    run = make_run(probes=False, older_timings=(1,))
    database = Query(find_runs([run.path]))
    (found,) = database.run(
        "SELECT sum(samples) AS samples, sum(seconds) AS seconds, count(key) AS batches"
        " FROM timings WHERE stage = 'generate'"
    ).to_pylist()
    assert found == {"samples": 20, "seconds": 4.0 + 2.0 + 8.0 + 12.0, "batches": 3}
    (slow,) = database.run(
        "SELECT s.prompt, t.seconds / t.samples AS each FROM timings t JOIN samples s"
        " USING (key, image_index) WHERE stage = 'generate' ORDER BY each DESC LIMIT 1"
    ).to_pylist()
    assert slow == {"prompt": prompt(16), "each": 3.0}
