"""Two runs compared: the numbers are those of the pairs alone, however the runs were laid out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluator.aggregate.asked import ReferencePlace
from evaluator.aggregate.feed import Feed
from evaluator.cli.compare_table import comparison_table
from evaluator.comparison import compare_runs
from evaluator.comparison.opened import open_runs
from evaluator.comparison.pairing import Request
from evaluator.comparison.records import Chosen, Comparison, Difference, Pairing
from evaluator.distributed import World
from evaluator.errors import EvaluatorError
from evaluator.metrics import frechet_distance_from_features
from evaluator.metrics.intervals import clustered_mean_interval, grouped_jackknife
from evaluator.statistics.contingency import mcnemar_p
from tests.comparison.synthetic import (
    FINGERPRINT,
    METRICS,
    Toy,
    key_of,
    make_run,
    prompt_numbers,
    values_of,
)

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "real"
    make_run(path, Toy(prompts=60, images=1, seed=99, first=1000, metrics=()))
    return path


@pytest.fixture
def make(tmp_path: Path, reference: Path) -> Make:
    """A run of a name, like `Toy` with changes, measured against one reference."""

    def build(name: str, **changes: object) -> Path:
        path = tmp_path / name
        make_run(path, Toy(reference=reference).changed(**changes))
        return path

    return build


def of(comparison: Comparison, name: str, group: tuple[str, str] | None = None) -> Difference:
    (pairing,) = comparison.pairings
    (found,) = [d for d in pairing.differences if (d.name, d.group) == (name, group)]
    return found


def only(*paths: Path, **request: object) -> tuple[Comparison, Pairing]:
    comparison = compare_runs(paths, Request(**request)).comparison  # type: ignore[arg-type]
    return comparison, comparison.pairings[0]


def stacked(toy: Toy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, scores and prompt numbers of a run's samples in the order of its plan."""
    made = [values_of(toy, number) for number in prompt_numbers(toy)]
    features = np.concatenate([each[0] for each in made]).astype(np.float32)
    scores = 100.0 * np.concatenate([each[1] for each in made])
    return features, scores, np.repeat(np.arange(toy.prompts), toy.images)


def test_a_copy_of_a_run_is_called_one(make):
    copied = "every image of B is that of A to the bit"
    again, other = make("b", backwards=True, failed=(key_of(3),)), make("c", seed=1)
    _, same = only(make("a"), again, permutations=99)
    assert any(copied in warning for warning in same.warnings)
    _, differs = only(again, other, permutations=99)
    assert not any(copied in warning for warning in differs.warnings)


def test_values_and_intervals_are_those_of_the_formulas(make):
    toys = Toy(), Toy(seed=1, shift=0.6, bonus=0.02)
    comparison, pairing = only(make("a"), make("b", seed=1, shift=0.6, bonus=0.02))
    assert (pairing.n, pairing.num_prompts, comparison.exit_status) == (48, 24, 0)
    (fa, sa, prompts), (fb, sb, _) = (stacked(toy) for toy in toys)
    mean = of(comparison, "clip_score_toy")
    expected = clustered_mean_interval(sb - sa, prompts)
    assert mean.difference == pytest.approx((sb - sa).mean(), rel=1e-12)
    assert mean.interval is not None
    assert (mean.interval.low, mean.interval.high) == pytest.approx((expected.low, expected.high))
    assert (mean.verdict, mean.n) == ("better", 48)
    real = stacked(Toy(prompts=60, images=1, seed=99, first=1000))[0]

    def difference(kept: np.ndarray) -> float:
        values = [frechet_distance_from_features(each[kept], real) for each in (fa, fb)]
        return values[1] - values[0]

    distance = of(comparison, "fd_toy")
    jackknife = grouped_jackknife(difference, prompts, covers="")
    assert distance.difference == pytest.approx(difference(np.arange(48)), rel=1e-6)
    assert distance.interval is not None
    assert distance.interval[:2] == pytest.approx((jackknife.low, jackknife.high), rel=1e-3)
    assert distance.verdict == "worse"


def test_order_and_shards_change_nothing(make):
    a, b = make("a"), make("b", seed=1)
    turned = make("c", seed=1, backwards=True, shard_size=7)
    plain, other = (only(a, each)[1] for each in (b, turned))
    for first, second in zip(plain.differences, other.differences, strict=True):
        assert (first.n, first.verdict, first.p) == (second.n, second.verdict, second.p)
        assert first.difference == pytest.approx(second.difference, rel=1e-9)
    assert [m.rose[0].key for m in plain.movers] == [m.rose[0].key for m in other.movers]


def test_exchanging_the_runs_turns_the_signs(make):
    a, b = make("a"), make("b", seed=1, bonus=0.02)
    there, back = (only(*paths)[0] for paths in ((a, b), (b, a)))
    for name in ("fd_toy", "kd_toy", "clip_score_toy"):
        one, two = of(there, name), of(back, name)
        assert one.difference == pytest.approx(-(two.difference or 0.0))
        assert one.p == pytest.approx(two.p)
    assert (of(there, "clip_score_toy").verdict, of(back, "clip_score_toy").verdict) == (
        "better", "worse",
    )  # fmt: skip


def test_runs_that_differ_by_seed_alone_are_not_told_apart(make):
    _, pairing = only(make("a"), make("b", seed=1))
    found = {each.name: (each.verdict, each.family) for each in pairing.differences}
    assert found.pop("kd_toy") == ("not tested", 0)
    assert set(found.values()) == {("no difference found", 3)}
    assert pairing.settings == (("seed", "0", "1"),)


@pytest.mark.parametrize("name", ["fd_toy", "fd_infinity_toy"])
def test_a_reference_is_fed_once_to_all_feeds_that_share_its_moments(make, tmp_path, name):
    a, features = make("a", metrics=(name,)), {"toy": FINGERPRINT}
    real = tmp_path / "real"
    run = make_run(real, Toy(prompts=60, images=1, seed=99, first=1000, metrics=()))
    opened = open_runs([a, make("b", seed=1)])[0]
    asked = replace(
        opened.asked, references={"real": ReferencePlace(str(real), None, None, features)}
    )
    (metric,) = asked.resolved().metrics

    def feed(shared: dict | None) -> Feed:
        return Feed(opened.run, asked, World(), None, shared=shared)

    shared: dict = {}
    first, alone = (
        feed(each).metric(metric, opened.shards).metric.compute() for each in (shared, None)
    )
    for table in run.path.glob("shards/*/features-*"):
        table.unlink()
    again = feed(shared).metric(metric, opened.shards).metric.compute()
    values = [(each.value, each.interval) for (each,) in (first, alone, again)]
    assert values[0] == values[1] == values[2]
    assert len(shared) == 1
    with pytest.raises(EvaluatorError, match="expected a file that was committed, got nothing"):
        feed({}).metric(metric, opened.shards)


def test_of_three_runs_it_is_said_which_pairs_are_compared_and_what_is_one_family(make):
    paths = [make("a"), make("b", seed=1), make("c", seed=2)]
    comparison = compare_runs(paths, Request(metrics=("clip_score_toy",))).comparison
    assert [pairing.letter for pairing in comparison.pairings] == ["B", "C"]
    assert [pairing.overall[0].family for pairing in comparison.pairings] == [2, 2]
    said = "B, C are compared with A and not with each other; Holm's correction is over the tests"
    assert any(each.startswith(said) for each in comparison.told)
    assert "with A and not with each other" in comparison_table(comparison)


def test_a_score_is_pass_or_fail_only_where_it_is_so_in_both_runs(make):
    marks, numbers = make("a", cosines="marks"), make("b")
    for pair in ((marks, numbers), (numbers, marks)):
        assert of(only(*pair)[0], "clip_score_toy").agreement is None


def test_tables_and_shards_give_the_same_scores(make):
    a, b = make("a"), make("b", seed=1, failed=[key_of(3)])
    before = of(only(a, b)[0], "clip_score_toy")
    (a / "metrics" / "clip_score_toy.parquet").unlink()  # as an older version left it
    after = of(only(a, b)[0], "clip_score_toy")
    assert before == after
    assert before.n == 46


def test_numbers_that_are_there_already_are_those_computed_again(make):
    a, b = make("a", images=3), make("b", seed=1, images=3)
    stored = only(a, b)[1]
    for path in (a, b):
        (path / "metrics.json").unlink()
    computed = only(a, b)[1]
    for first, second in zip(stored.differences, computed.differences, strict=True):
        assert first.interval is not None
        assert second.interval is not None
        assert first.interval[:2] == pytest.approx(second.interval[:2], rel=1e-9)
        assert (first.p, first.verdict, first.n, first.warnings) == (
            second.p, second.verdict, second.n, second.warnings,
        )  # fmt: skip


def test_numbers_that_are_there_already_are_not_computed_again(make):
    a, b = make("a"), make("b", seed=1)
    for features in [*a.glob("shards/*/features-*"), *b.glob("shards/*/features-*")]:
        features.unlink()  # neither features nor scores are read, where metrics/ has them
    found = only(a, b)[1].differences
    assert {d.name for d in found if d.verdict == "no difference found"} == {
        "fd_toy", "kd_full_toy", "clip_score_toy",
    }  # fmt: skip
    assert all(each.difference is not None for each in found)
    (a / "metrics.json").write_text("{}")
    assert {each.verdict for each in only(a, b)[1].differences} == {"not comparable"}


def test_only_what_both_have_is_compared(make):
    a, b = make("a"), make("b", seed=1, first=4)
    comparison, pairing = only(a, b)
    assert (pairing.n, pairing.only_baseline, pairing.only_other) == (40, 8, 8)
    assert (
        "the 40 samples that both have, so that n is equal: 8 of A and 8 of B"
        in pairing.warnings[0]
    )
    overlap = of(comparison, "fd_toy")
    alone = make("c", first=4, prompts=20), make("d", seed=1, first=4, prompts=20)
    same = of(only(*alone)[0], "fd_toy")
    assert overlap.baseline == pytest.approx(same.baseline, rel=1e-9)
    assert overlap.difference == pytest.approx(same.difference, rel=1e-9)
    assert overlap.n == 40


def test_groups_are_compared_by_themselves(make):
    comparison, pairing = only(make("a"), make("b", seed=1, bonus=0.02), tag="colour")
    assert {each.group for each in pairing.grouped} == {("colour", "blue"), ("colour", "red")}
    _, scores, _ = stacked(Toy())
    red = np.repeat([number % 2 == 1 for number in range(24)], 2)
    found = of(comparison, "clip_score_toy", ("colour", "red"))
    assert (found.n, found.num_prompts) == (24, 12)
    assert found.baseline == pytest.approx(scores[red].mean(), rel=1e-12)
    assert found.family == 6  # three numbers in two groups: the kernel distance is tested once
    assert of(comparison, "fd_toy", ("colour", "red")).n == 24
    comparison, pairing = only(make("c"), make("d", seed=1), tag="size")
    assert "expected prompts with the tag 'size', got none; they have colour" in (
        pairing.refusals[0].why
    )
    assert comparison.exit_status == 1


def test_scores_of_pass_and_fail_are_counted(make):
    own = {"name": "evaluator.metrics.score_metrics:MeanScore", "extractor": "toy"}
    metrics = [{**own, "input": "text_cosine"}]
    a, b = (
        make(name, seed=seed, bonus=bonus, cosines="marks", prompts=60, images=1, metrics=metrics)
        for name, seed, bonus in (("a", 0, -0.2), ("b", 1, 0.3))
    )
    found = of(only(a, b)[0], "mean_score")
    first, second = (
        np.concatenate([values_of(toy, number)[1] for number in range(60)]) == 1.0
        for toy in (
            Toy(seed=0, bonus=-0.2, cosines="marks", images=1),
            Toy(seed=1, bonus=0.3, cosines="marks", images=1),
        )
    )
    assert found.agreement is not None
    counts = (first & second).sum(), (first & ~second).sum(), (~first & second).sum()
    assert found.agreement[:3] == counts
    assert found.agreement.p == pytest.approx(mcnemar_p(int(counts[1]), int(counts[2]))[0])
    assert found.verdict == "better"


def test_the_samples_that_changed_most_come_with_their_prompts(make):
    _, pairing = only(make("a"), make("b", seed=1), changed=3)
    (movers,) = pairing.movers
    assert [len(movers.rose), len(movers.fell)] == [3, 3]
    (_, sa, _), (_, sb, _) = stacked(Toy()), stacked(Toy(seed=1))
    assert movers.rose[0].difference == pytest.approx((sb - sa).max())
    assert movers.fell[0].difference == pytest.approx((sb - sa).min())
    top = int(np.argmax(sb - sa))
    assert (movers.rose[0].key, movers.rose[0].image_index) == (key_of(top // 2), top % 2)
    assert movers.rose[0].prompt == f"prompt of {key_of(top // 2)}"


def test_several_runs_are_corrected_together(make):
    comparison = compare_runs([make("a"), make("b", seed=1), make("c", seed=2)]).comparison
    assert [pairing.letter for pairing in comparison.pairings] == ["B", "C"]
    differences = [each for pairing in comparison.pairings for each in pairing.differences]
    assert {each.family for each in differences if each.name != "kd_toy"} == {6}


def test_the_same_comparison_gives_the_same_record(make):
    a, b = make("a"), make("b", seed=1)
    assert compare_runs([a, b]).comparison.record() == compare_runs([a, b]).comparison.record()


def test_the_reference_is_taken_from_where_the_baseline_has_it(make, reference, tmp_path):
    b = make("b", seed=1)
    moved = tmp_path / "moved"
    reference_of_b = b / "asked.json"
    reference_of_b.write_text(reference_of_b.read_text().replace(str(reference), str(moved)))
    a = make("a")
    assert of(only(a, b)[0], "fd_toy").verdict == "no difference found"
    assert FINGERPRINT.startswith(of(only(a, b)[0], "fd_toy").fingerprint or "?")


def test_existing_images_are_paired_by_their_names(make):
    keys = [key_of(number) for number in range(24)]
    mine, theirs = ({key: f"image {key} of {run}" for key in keys} for run in "ab")
    images = {"model": {"kind": "images"}}
    a = make("a", content=mine, config=images)
    _, pairing = only(a, make("b", seed=1, content=theirs, config=images))
    assert (pairing.n, pairing.refusals, pairing.warnings) == (48, (), ())
    without = dict.fromkeys(keys)
    _, pairing = only(make("c"), make("d", seed=1, content=theirs, config=images, text=without))
    assert (pairing.n, pairing.refusals) == (48, ())
    assert pairing.warnings == (
        "48 samples have no prompt in one of the runs: paired by their keys alone",
    )


def test_of_a_metric_of_ones_own_the_values_are_compared_and_nothing_is_claimed(make):
    own = {"name": "tests.aggregate.custom_metrics:MeanShift", "extractor": "toy"}
    metrics = ["clip_score_toy", {**own, "reference": "real"}]
    a, b = make("a", metrics=metrics), make("b", seed=1, shift=0.5, metrics=metrics)
    comparison, _ = only(a, b)
    found = of(comparison, "mean_shift")
    features = [stacked(toy)[0] for toy in (Toy(), Toy(seed=1, shift=0.5))]
    real = stacked(Toy(prompts=60, images=1, seed=99, first=1000))[0]
    shifts = [float(np.linalg.norm(each.mean(0) - real.mean(0))) for each in features]
    assert found.difference == pytest.approx(shifts[1] - shifts[0], rel=1e-5)
    assert (found.verdict, found.interval, found.p) == ("not tested", None, None)
    assert "a metric of your own is not computed again" in found.why
    overlap = only(a, make("c", first=3, metrics=metrics))[0]
    assert of(overlap, "mean_shift").verdict == "not comparable"
    assert of(overlap, "clip_score_toy").verdict == "no difference found"
    assert overlap.exit_status == 1


def test_diversity_within_prompts_has_a_paired_interval(make):
    metrics = ("diversity_toy",)
    a, b = (make(name, seed=seed, images=3, metrics=metrics) for name, seed in (("a", 0), ("b", 1)))
    found = of(only(a, b)[0], "diversity_toy")
    assert found.interval is not None
    assert found.interval.low < (found.difference or 0.0) < found.interval.high
    assert found.verdict == "no difference found"


def test_one_metric_against_two_references_keeps_both_scores(make, reference):
    metrics = [
        {"name": "memorized_fraction_toy", "reference": "real", "threshold": t} for t in (0.9, 0.99)
    ]
    a, b = make("a", metrics=metrics), make("b", seed=1, metrics=metrics)
    compared = compare_runs([a, b])
    names = [score.name for score in compared.pairs["B"][1]]
    assert len(names) == len(set(names)) == 4
    assert all(each.agreement for each in compared.comparison.pairings[0].differences)


def test_a_number_at_the_end_of_its_range_is_compared_by_its_jackknife(make):
    metrics = ({"name": "prdc_toy", "k": 3},)
    a, b = make("a", metrics=metrics), make("b", seed=1, shift=3.0, metrics=metrics)
    stored = {each.name: each for each in only(a, b)[1].differences}
    precision = stored["precision_toy"]
    assert (precision.baseline or 0.0) > 0.5
    assert precision.other == 0.0  # its own interval is not a jackknife
    assert precision.verdict == "worse"
    assert precision.interval is not None
    same = {each.name: each for each in only(b, make("c", shift=3.0, metrics=metrics))[1].overall}
    assert same["precision_toy"].interval is None
    assert same["precision_toy"].verdict == "not tested"
    assert "changes the difference by nothing" in same["precision_toy"].why


def test_metrics_that_were_chosen_are_said_with_how_many_there_are(make):
    a, b = make("a"), make("b", seed=1)
    whole, _ = only(a, b)
    assert whole.chosen is None
    some, pairing = only(a, b, metrics=("clip_score_toy",))
    assert some.chosen == Chosen(("clip_score_toy",), 1, 3)
    assert some.chosen.told.startswith("1 of 3 metrics were chosen (clip_score_toy): Holm's")
    (found,) = pairing.differences
    assert (found.family, found.p_adjusted) == (1, found.p)
    assert found.why.endswith("after Holm's correction over 1 test of the chosen metrics alone")
    assert of(whole, "clip_score_toy").family > 1
    assert Comparison.from_record(json.loads(json.dumps(some.record()))) == some
    assert "1 of 3 metrics were chosen" in comparison_table(some)
    assert "1 of 3 metrics were chosen" in some._repr_html_()
    everything, _ = only(a, b, metrics=METRICS)
    assert everything.chosen is not None
    assert everything.chosen.told == ""
    assert everything.pairings == whole.pairings


def test_a_comparison_of_an_earlier_version_does_not_say_what_was_chosen(make):
    record = only(make("a"), make("b", seed=1))[0].record()
    del record["chosen"]
    assert Comparison.from_record(record).chosen is None


def test_of_results_of_one_quantity_one_alone_is_tested(make):
    comparison, pairing = only(make("a"), make("b", seed=1))
    subsets, full = of(comparison, "kd_toy"), of(comparison, "kd_full_toy")
    assert (subsets.p, subsets.p_adjusted, subsets.family) == (None, None, 0)
    assert subsets.verdict == "not tested"
    assert subsets.why.startswith("not tested apart: kd_full_toy is of the same quantity")
    # what is said of the subsets is about the subsets: their own difference, in their own interval
    assert subsets.difference == pytest.approx(subsets.other - subsets.baseline)
    assert (subsets.interval.low + subsets.interval.high) / 2 == pytest.approx(subsets.difference)
    assert full.p is not None
    assert full.family == sum(d.p is not None for d in pairing.overall) == 3


def test_of_metrics_of_one_quantity_one_alone_is_tested_where_it_is_there(make):
    metrics = ("fd_infinity_toy", "fd_toy", "clip_score_toy")
    a, b = (make(each, prompts=60, metrics=metrics, seed=i) for i, each in enumerate("ab"))
    comparison, pairing = only(a, b, tag="colour")
    for group in {d.group for d in pairing.differences}:
        bare, infinite = (of(comparison, name, group) for name in ("fd_toy", "fd_infinity_toy"))
        assert bare.p is not None
        assert (infinite.p, infinite.family, infinite.verdict) == (None, 0, "not tested")
        assert infinite.why.startswith("not tested apart: fd_toy is of the same quantity")
        assert infinite.difference == pytest.approx(infinite.other - infinite.baseline)
    assert of(comparison, "fd_toy").family == sum(d.p is not None for d in pairing.overall) == 2
    alone = of(only(a, b, metrics=("fd_infinity_toy",))[0], "fd_infinity_toy")
    assert alone.p is not None
