"""Scores of single samples: at their places, spread as they are, and the ones that matter chosen."""

from __future__ import annotations

import csv
import io

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from evaluator.report.chosen import NUM_EXTREMES, choose
from evaluator.report.distributions import bins_csv, distributions, spreads_csv
from evaluator.report.groups import group_tables
from evaluator.report.listing import SampleList
from evaluator.report.results import parse_results
from evaluator.report.scores import MAX_SCORES, Score, Scores, as_floats, scalar_columns
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory
from tests.report.conftest import samples_table

NUM = 200


def listed(num: int = NUM, *, tags: bool = True) -> SampleList:
    samples = SampleList(num)
    for start in range(0, num, 64):
        samples.add(samples_table(range(start, min(start + 64, num)), tags=tags), start)
    return samples


def scored(values: np.ndarray, column: str = "cosine") -> Scores:
    scores = Scores(len(values))
    name = f"clip {column}"
    scores.columns["f", column] = Score(name, "features-clip-0123abcd.parquet", column, values)
    return scores


def uneven(seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).gamma(2.0, size=NUM)
    values[[5, 17]] = np.nan
    return values


# -- which samples get pictures --------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 3, 40, 500])
def test_ends_of_a_score_come_first_then_the_plan(limit: int) -> None:
    values = uneven()
    chosen = choose(listed(), scored(values), limit)
    assert len(chosen.pictures) == min(limit, NUM - 1)
    assert chosen.pictures == sorted(set(chosen.pictures))
    assert 5 not in chosen.pictures, "it has an error and so no image"
    ranks = np.argsort(values)
    if limit == 40:
        ends = {*ranks[:NUM_EXTREMES].tolist(), *ranks[NUM - 2 - NUM_EXTREMES : NUM - 2].tolist()}
        rest = [i for i in range(NUM) if i not in ends and i != 5][: 40 - len(ends)]
        assert set(chosen.pictures) == ends | set(rest)
    assert choose(listed(), scored(values), limit) == chosen


def test_flawed_images_come_before_all_others() -> None:
    samples = SampleList(20)
    table = samples_table(range(20))
    flaws = pa.array(["black" if i in (11, 13) else None for i in range(20)])
    table = table.set_column(table.column_names.index("flaw"), "flaw", flaws)
    samples.add(table, 0)
    assert choose(samples, Scores(20), 2).pictures == [11, 13]


# -- their numbers ---------------------------------------------------------------------------------


def test_rows_of_a_metric_find_their_samples_in_any_order(scored_run: RunDirectory) -> None:
    scores = Scores(20)
    said: list[str] = []
    scores.add_metrics(scored_run, 20, said.append)
    (score,) = scores.found()
    expected = [1 / (i + 1) if i % 2 == 0 else np.nan for i in range(20)]
    np.testing.assert_allclose(score.values, expected)
    assert said == []
    assert scores.nearest[0].names[4] == "r4 · 0"


def test_shuffled_and_foreign_rows_of_a_metric(scored_run: RunDirectory) -> None:
    order = [13, 2, 19, 7]
    table = pa.table({
        "key": [f"k{i:04d}" for i in order] + ["elsewhere"],
        "image_index": pa.array([0] * 5, pa.int32()),
        "score": [float(i) for i in order] + [99.0],
    })  # fmt: skip
    path = scored_run.path / "metrics" / "own.parquet"
    schemas.write_table(table, path, kind="metric")
    try:
        scores = Scores(20)
        scores.add_metrics(scored_run, 20, lambda fault: None)
        own = scores.columns["metrics/own.parquet", "score"].values
        assert {i: v for i, v in enumerate(own) if np.isfinite(v)} == {i: float(i) for i in order}
    finally:
        path.unlink()


def test_a_damaged_table_is_said_and_the_others_are_read(scored_run: RunDirectory) -> None:
    path = scored_run.path / "metrics" / "broken.parquet"
    path.write_bytes(b"PAR1 no table")
    try:
        said: list[str] = []
        scores = Scores(20)
        scores.add_metrics(scored_run, 20, said.append)
        assert len(scores.found()) == 1
        assert len(said) == 1
        assert "broken.parquet: expected" in said[0]
    finally:
        path.unlink()


def test_only_columns_of_one_number_are_scores(scored_run: RunDirectory) -> None:
    path = scored_run.shard_path(0) / "features-clip-0123abcd.parquet"
    assert scalar_columns(path) == ["text_cosine", "confident"]
    assert as_floats(pa.chunked_array([[True, None, False]]))[[0, 2]].tolist() == [1.0, 0.0]
    assert np.isnan(as_floats(pa.chunked_array([[True, None, False]]))[1])


def test_a_column_that_never_differs_tells_nothing() -> None:
    assert scored(np.zeros(9)).found() == []
    assert scored(np.full(9, np.nan)).found() == []
    assert len(scored(np.arange(9.0)).found()) == 1


def test_scores_of_one_name_are_told_by_their_tables() -> None:
    scores = scored(np.arange(3.0))
    other = Score("clip cosine", "features-clip-89abcdef.parquet", "cosine", np.arange(3.0))
    scores.columns["g", "cosine"] = other
    assert [score.name for score in scores.found()] == [
        "clip cosine (features-clip-0123abcd.parquet)",
        "clip cosine (features-clip-89abcdef.parquet)",
    ]


def test_columns_beyond_the_limit_are_counted() -> None:
    scores = Scores(2)
    for i in range(MAX_SCORES + 3):
        scores._column("f.parquet", f"c{i}", f"c{i}")
    assert len(scores.columns) == MAX_SCORES
    assert len(scores.left_out) == 3


# -- how they are spread ---------------------------------------------------------------------------


def test_histogram_counts_every_sample_once() -> None:
    values = uneven()
    (found,) = distributions(listed(), scored(values), np.arange(NUM))
    assert found.counts.sum() == found.overall.num == NUM - 2
    for low, high, count in zip(found.edges[:-1], found.edges[1:], found.counts, strict=True):
        last = high == found.edges[-1]
        inside = (values >= low) & ((values <= high) if last else (values < high))
        assert inside.sum() == count


@pytest.mark.parametrize("values", [[1.0, 1 - 2e-16, 1 - 1e-16, 1.0], [1e100, 1e100 * (1 + 1e-15)]])
def test_values_that_differ_by_rounding_have_a_histogram(values: list[float]) -> None:
    """Copies of training images: their similarity is 1, but for the last digit."""
    samples, num = SampleList(len(values)), len(values)
    scores = Scores(num, {("f", "c"): Score("s", "f", "c", np.array(values))})
    (found,) = distributions(samples, scores, np.arange(num))
    assert found.counts.sum() == num
    assert (np.diff(found.edges) > 0).all()


def test_mean_and_interval_are_the_textbook_ones_where_prompts_have_one_image() -> None:
    values = uneven(1)
    (found,) = distributions(listed(), scored(values), np.arange(NUM))
    for spread in (found.overall, *found.groups):
        inside = values
        if spread.tag == "colour":
            inside = values[("red", "green", "blue", "yellow").index(spread.value) :: 4]
        elif spread.tag:
            inside = values[int(spread.value[-1]) :: 2]
        inside = inside[np.isfinite(inside)]
        assert spread.num == len(inside)
        assert spread.mean == pytest.approx(inside.mean(), rel=1e-12)
        error = inside.std(ddof=1) / np.sqrt(len(inside))
        low, high = stats.t.interval(0.95, len(inside) - 1, inside.mean(), error)
        assert (spread.low, spread.high) == pytest.approx((low, high), rel=1e-9)
        assert spread.median == pytest.approx(np.median(inside), rel=1e-12)
    assert len(found.groups) == 4 + 2


def test_images_of_one_prompt_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(2).normal(size=NUM // 4), 4)
    apart = distributions(listed(), scored(values), np.arange(NUM))[0].overall
    together = distributions(listed(), scored(values), np.arange(NUM) // 4)[0].overall
    assert together.high - together.low > 1.8 * (apart.high - apart.low)


def test_a_group_in_which_all_say_no_has_an_interval_with_width() -> None:
    """As `clustered_share_interval`: none of 50 prompts leaves 1 - 0.025^(1/50) open."""
    marks = np.zeros(NUM)
    marks[::4] = np.arange(NUM // 4) % 2  # red ones alone
    (found,) = distributions(listed(), scored(marks), np.arange(NUM))
    blue = next(spread for spread in found.groups if spread.value == "blue")
    assert (blue.num, blue.mean, blue.low) == (50, 0.0, 0.0)
    assert blue.high == pytest.approx(1.0 - 0.025 ** (1 / 50), rel=1e-9)
    n, passed = found.overall.num, int(marks.sum())
    exact = stats.binomtest(passed, n).proportion_ci(0.95)
    assert (found.overall.low, found.overall.high) == pytest.approx((exact.low, exact.high), 1e-2)


def test_tables_of_distributions_hold_no_formula() -> None:
    found = distributions(listed(), scored(uneven()), np.arange(NUM))
    rows = list(csv.DictReader(io.StringIO(spreads_csv(found))))
    assert {row["tag"] for row in rows} == {"", "colour", "'=tag"}
    assert float(rows[0]["mean"]) == found[0].overall.mean
    bars = list(csv.DictReader(io.StringIO(bins_csv(found))))
    assert sum(int(bar["samples"]) for bar in bars) == NUM - 2


def test_groups_become_one_table_a_tag() -> None:
    entries = [
        {"name": name, "value": i, "n": 1, "n_expected": 1, "group": {tag: value}}
        for i, (name, tag, value) in enumerate(
            [("fid", "region", "Asia"), ("fid", "region", "Africa"), ("cs", "region", "Africa"),
             ("fid", "size", "small")]
        )
    ]  # fmt: skip
    region, size = group_tables(parse_results([{"name": "fid", "value": 9.0}, *entries]))
    assert (region.tags, size.tags) == ("region", "size")
    assert [head.metric for head in region.metrics] == ["fid", "cs"]
    values = [[None if r is None else r.value for r in row] for _, row in region.rows]
    assert values == [[0.0, None], [1.0, 2.0]]


def test_groups_against_two_references_have_a_column_each() -> None:
    entries = [
        {"name": "fid", "value": value, "n": 1, "n_expected": 1, "group": {"colour": "red"},
         "reference": {"name": reference, "n": 5}, "higher_is_better": better}
        for value, reference, better in (
            (1.0, "coco", None), (2.0, "photos", False), (3.0, "coco", False)
        )
    ]  # fmt: skip
    (table,) = group_tables(parse_results(entries))
    assert [head.metric for head in table.metrics] == [
        "fid against coco", "fid against photos", "fid against coco (2)",
    ]  # fmt: skip
    ((value, row),) = table.rows
    assert value == "red"
    assert [each.value for each in row if each] == [1.0, 2.0, 3.0]
