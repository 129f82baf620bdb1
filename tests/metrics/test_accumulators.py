"""The contract of every metric class, in one process."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_samples import DIM, EXACT, SPECS, build, two_sides, whole

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import (
    ClipScore,
    FrechetDistance,
    InceptionScore,
    KernelDistance,
    MeanScore,
    PrecisionRecallDensityCoverage,
    Result,
    authpct,
    clip_score,
    cmmd,
    ct_score,
    fid_infinity,
    fls,
    frechet_distance_from_features,
    grouped_jackknife,
    inception_score,
    kernel_distance,
    kernel_distance_unbiased,
    memorized_fraction,
    mifid,
    precision_recall_density_coverage,
    realism_scores,
    rp_score,
    vendi_score,
    within_prompt_diversity,
)
from evaluator.metrics.catalog import resolve

TWO_SETS = [spec for spec in SPECS if two_sides(spec)[1] is not None]


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def drawn(*shape: int) -> torch.Tensor:
    """Normal numbers, the same ones in every test."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def assert_same(got: tuple[Result, ...], want: tuple[Result, ...], *, exact: bool) -> None:
    if exact:
        assert got == want
        return
    for a, b in zip(got, want, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-12)
        assert (a.n, a.name, a.warnings) == (b.n, b.name, b.warnings)
        assert a.interval is not None
        assert b.interval is not None
        assert (a.interval.low, a.interval.high) == pytest.approx(
            (b.interval.low, b.interval.high), rel=1e-9
        )


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), states=st.integers(1, 4), batch=st.integers(1, 40))
def test_any_split_into_states_merged_in_any_order_gives_the_same_number(
    spec: str, seed: int, states: int, batch: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    parts = [build(spec) for _ in range(states)]
    for plan, real in zip(two_sides(spec), (False, True), strict=True):
        if plan is None:
            continue
        for indices in torch.randperm(len(plan.positions), generator=generator).split(batch):
            chosen = int(torch.randint(states, (), generator=generator))
            plan.feed(parts[chosen], indices, real=real)
    merged = parts[0]
    for part in parts[1:]:
        merged.merge_state(part)
    assert_same(merged.compute(), whole(spec).compute(), exact=EXACT[spec])


def test_the_classes_give_the_numbers_of_the_functions() -> None:
    plans = {spec: two_sides(spec) for spec in SPECS}
    expected = {}
    for spec, (generated, real) in plans.items():
        fake, other = generated.values, None if real is None else real.values
        expected[spec] = {
            "fd_x": lambda f=fake, o=other: (frechet_distance_from_features(f, o),),
            "kd_x": lambda f=fake, o=other: (
                kernel_distance(f, o, num_subsets=5, subset_size=30).mean,
                kernel_distance_unbiased(f, o),
            ),
            "fd_infinity_x": lambda f=fake, o=other: (fid_infinity(o, f, num_points=4).value,),
            "mifd_x": lambda f=fake, o=other: (mifid(o, f),),
            "is_x": lambda f=fake: (inception_score(f, splits=3).mean,),
            "prdc_x": lambda f=fake, o=other: precision_recall_density_coverage(o, f, k=3),
            "cmmd_x": lambda f=fake, o=other: (cmmd(o, f),),
            "vendi_x": lambda f=fake: (vendi_score(f),),
            "authpct_x": lambda f=fake, o=other: (authpct(o, f),),
            "realism_x": lambda f=fake, o=other: (realism_scores(o, f).mean(),),
            "memorized_fraction_x": lambda f=fake, o=other: (
                memorized_fraction(o, f),
                1 - memorized_fraction(o, f),
            ),
            "rp_score_x": lambda f=fake, o=other: (rp_score(f[:70], o),),
            "diversity_x": lambda f=fake: (within_prompt_diversity(f, np.arange(90) // 2),),
            "fls_x": lambda f=fake, o=other: (fls(o[:40], o[40:], f),),
            "ct_x": lambda f=fake, o=other: (ct_score(o[:40], o[40:], f, cells=2),),
            "clip_score": lambda f=fake: (clip_score(f),),
        }[spec]()
    for spec, values in expected.items():
        got = [result.value for result in whole(spec).compute()]
        assert got == pytest.approx(list(values), rel=1e-12), spec


@pytest.mark.parametrize("spec", ["fd_x", "prdc_x", "cmmd_x", "vendi_x", "authpct_x", "mifd_x"])
def test_intervals_are_the_jackknife_of_the_functions(spec: str) -> None:
    generated, real = two_sides(spec)
    fake, other = generated.values, None if real is None else real.values
    for index, result in enumerate(whole(spec).compute()):

        def statistic(i: np.ndarray, index: int = index) -> float:
            if spec == "fd_x":
                return frechet_distance_from_features(fake[i], other)
            if spec == "mifd_x":
                return mifid(other, fake[i])
            if spec == "cmmd_x":
                return cmmd(other, fake[i])
            if spec == "authpct_x":
                return authpct(other, fake[i])
            if spec == "vendi_x":
                return vendi_score(fake[i])
            return precision_recall_density_coverage(other, fake[i], k=3)[index]

        upper = 1.0 if index in (0, 1, 3) and spec == "prdc_x" else np.inf
        expected = grouped_jackknife(
            statistic,
            generated.clusters,
            covers=result.interval.covers,
            groups=SPECS[spec].get("groups", 20),
            bounds=(1.0, float(DIM)) if spec == "vendi_x" else (0.0, upper),
        )
        assert (result.interval.low, result.interval.high) == pytest.approx(
            (expected.low, expected.high), rel=1e-9
        )
        assert ("reference held fixed" in result.interval.covers) == (real is not None)


def test_the_kernel_distances_intervals_differ_by_the_noise_of_the_subsets() -> None:
    generated, real = two_sides("kd_x")
    fake, other = generated.values, real.values
    for options in ({}, {"num_subsets": 1}):
        drawn, full = whole("kd_x", **options).compute()
        expected = grouped_jackknife(
            lambda i: kernel_distance_unbiased(fake[i], other),
            generated.clusters,
            covers=full.interval.covers,
        )
        assert (full.interval.low, full.interval.high) == pytest.approx(
            (expected.low, expected.high), rel=1e-9
        )
        assert drawn.interval.low + drawn.interval.high == pytest.approx(2 * drawn.value)
        reach = (drawn.interval.high - drawn.interval.low) / 2
        count = options.get("num_subsets", 5)
        noise = 2.093 * drawn.details["std"] / count**0.5
        assert reach == pytest.approx(
            np.hypot((full.interval.high - full.interval.low) / 2, noise), rel=1e-3
        )


@pytest.mark.parametrize("spec", SPECS)
def test_states_survive_saving_and_go_on_growing(spec: str) -> None:
    metric = build(spec)
    sides = [plan for plan in two_sides(spec) if plan is not None]
    for plan, real in zip(sides, (False, True), strict=False):
        plan.feed(metric, torch.arange(40), real=real)
    stored = BytesIO()
    torch.save(metric.state_dict(), stored)
    stored.seek(0)
    saved = torch.load(stored, weights_only=True)
    kept = {name: value for name, value in saved.items() if isinstance(value, torch.Tensor)}
    copies = {name: value.clone() for name, value in kept.items()}
    restored = build(spec)
    restored.compute()  # a cached number must not outlive the load
    restored.load_state_dict(saved)
    assert restored.compute() == metric.compute()
    for plan, real in zip(sides, (False, True), strict=False):
        plan.feed(restored, torch.arange(40, len(plan.positions)), real=real)
    assert_same(restored.compute(), whole(spec).compute(), exact=EXACT[spec])
    assert all(torch.equal(kept[name], copies[name]) for name in kept)


@pytest.mark.parametrize("spec", SPECS)
def test_metrics_can_be_pickled_cloned_and_reset(spec: str) -> None:
    metric = whole(spec)
    results = metric.compute()
    assert pickle.loads(pickle.dumps(metric)).compute() == results
    clone = metric.clone()
    clone.reset()
    assert all(result.value is None for result in clone.compute())
    assert metric.compute() == results


@pytest.mark.parametrize("spec", SPECS)
def test_states_cannot_be_narrowed(spec: str) -> None:
    metric = whole(spec)
    results = metric.compute()
    before = {
        name: value for name, value in metric.state_dict().items() if name in metric._defaults
    }
    metric.set_dtype(torch.float16).half()
    torch.nn.ModuleList([metric]).half()
    after = metric.state_dict()
    for name, states in before.items():
        pairs = zip(states, after[name]) if isinstance(states, list) else [(states, after[name])]
        for state, kept in pairs:
            assert state.dtype == kept.dtype
            assert torch.equal(state, kept)
    fresh = build(spec).set_dtype(torch.float32)
    assert_same(results, whole(spec).compute(), exact=True)
    assert all(result.value is None for result in fresh.compute())


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec != "fd_x"])
def test_samples_are_held_as_narrow_as_they_come_and_computed_in_float64(spec: str) -> None:
    generated, real = two_sides(spec)
    mixed = build(spec)
    narrow, wide = torch.arange(40), torch.arange(40, 90)
    generated.feed(mixed, narrow, real=False)
    assert mixed.fake_values[0].dtype == torch.float32
    mixed.update(
        generated.values[wide].double(), generated.positions[wide], generated.clusters[wide]
    )
    if real is not None:
        real.feed(mixed, torch.arange(70), real=True)
    assert mixed.compute() == whole(spec).compute()
    halves = build(spec)
    halves.update(generated.values.half(), generated.positions, generated.clusters)
    assert torch.equal(halves.fake_values[0], generated.values.half().float())


def test_a_buffer_that_is_filled_again_does_not_change_what_was_counted() -> None:
    metric, buffer = MeanScore(names=("nll",)), torch.ones(3, dtype=torch.float64)
    metric.update(buffer, torch.arange(3), torch.arange(3))
    buffer.zero_()
    assert metric.compute()[0].value == 1.0


@pytest.mark.parametrize("spec", SPECS)
def test_samples_that_are_not_finite_are_named_and_not_taken(spec: str) -> None:
    metric = build(spec)
    plan = two_sides(spec)[0]
    values = plan.values.clone()
    values[3] = torch.nan
    values[7] = torch.inf
    with pytest.raises(MetricError, match="NaN or infinity at positions 1003, 1007;"):
        metric.update(values, plan.positions, plan.clusters)
    plan.feed(metric, torch.arange(90), real=False)
    assert metric.compute()[0].n == 90


@pytest.mark.parametrize("spec", SPECS)
def test_a_sample_counted_twice_is_an_error(spec: str) -> None:
    metric = whole(spec)
    two_sides(spec)[0].feed(metric, torch.tensor([5]), real=False)
    with pytest.raises(MetricError, match=r"fake samples: .* once, got \[1005\] more than once"):
        metric.compute()


@pytest.mark.parametrize("spec", SPECS)
def test_malformed_updates_are_refused(spec: str) -> None:
    metric, plan = build(spec), two_sides(spec)[0]
    with pytest.raises(MetricError, match="values: expected floats of shape"):
        metric.update(plan.values[None], plan.positions, plan.clusters)
    with pytest.raises(MetricError, match="positions: expected 90 integers"):
        metric.update(plan.values, plan.positions[:4], plan.clusters)
    with pytest.raises(MetricError, match="clusters: expected 90 integers"):
        metric.update(plan.values, plan.positions, plan.clusters.double())
    with pytest.raises(MetricError, match="clusters: expected prompt numbers from 0, got -1"):
        metric.update(plan.values, plan.positions, plan.clusters - 1)
    if spec not in TWO_SETS:
        with pytest.raises(MetricError, match="expected generated samples only, got real=True"):
            plan.feed(metric, torch.arange(3), real=True)


@pytest.mark.parametrize("spec", SPECS)
def test_states_of_other_settings_are_refused(spec: str) -> None:
    with pytest.raises(MetricError, match=r"states: expected those of .*'seed': 0"):
        build(spec).load_state_dict(type(build(spec))(DIM, seed=1).state_dict())
    with pytest.raises(MetricError, match="build the metric with the same settings"):
        build(spec).merge_state(type(build(spec))(DIM, seed=1))


ONE_IS_ENOUGH = ("memorized_fraction_x", "rp_score_x")


@pytest.mark.parametrize(
    ("spec", "fakes", "reals"),
    [
        (spec, *counts)
        for spec in TWO_SETS
        for counts in ((0, 70), (90, 0), (1, 1))
        if not (counts == (1, 1) and spec in ONE_IS_ENOUGH) and not resolve(spec).held_out
    ],
)
def test_too_few_samples_give_no_number_and_the_reason(spec: str, fakes: int, reals: int) -> None:
    metric = build(spec)
    generated, real = two_sides(spec)
    generated.feed(metric, torch.arange(fakes), real=False)
    real.feed(metric, torch.arange(reals), real=True)
    for result in metric.compute():
        assert result.value is None
        assert result.n == fakes
        assert f"got {fakes} and {reals};" in result.warnings[0]


def test_too_few_samples_for_the_splits_give_no_number() -> None:
    metric = InceptionScore(3, splits=10)
    metric.update(drawn(9, 3), torch.arange(9), torch.arange(9))
    (result,) = metric.compute()
    assert result.value is None
    assert "at least 10 samples for 10 splits, got 9" in result.warnings[0]


@pytest.mark.parametrize("spec", SPECS)
def test_one_prompt_gives_a_number_without_an_interval(spec: str) -> None:
    metric = build(spec)
    generated, real = two_sides(spec)
    metric.update(generated.values, generated.positions, torch.zeros(90, dtype=torch.int64))
    if real is not None:
        real.feed(metric, torch.arange(70), real=True)
    for result in metric.compute():
        assert result.value is not None
        assert result.interval is None
        assert any("no interval" in warning for warning in result.warnings)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("per_prompt", [1, 2])
def test_a_handful_of_prompts_gives_a_number_or_the_reason(spec: str, per_prompt: int) -> None:
    generated, real = two_sides(spec)
    for num_prompts in range(1, 7):
        metric = build(spec)
        chosen = torch.arange(num_prompts * per_prompt)
        metric.update(generated.values[chosen], generated.positions[chosen], chosen // per_prompt)
        if real is not None:
            real.feed(metric, torch.arange(70), real=True)
        for result in metric.compute():
            assert result.warnings or (result.value is not None and result.interval is not None)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "groups" in resolve(spec).options])
def test_no_groups_mean_no_interval_and_no_remark(spec: str) -> None:
    for result in whole(spec, groups=0).compute():
        assert result.interval is None
        assert not any("interval" in warning for warning in result.warnings)


def test_rules_of_thumb_stand_next_to_the_numbers() -> None:
    (distance,) = whole("fd_x").compute()
    assert any("90 generated samples: below 10000" in warning for warning in distance.warnings)
    for result in whole("prdc_x").compute():
        assert any("70 reference samples: below 5000" in warning for warning in result.warnings)
    kernel, full = whole("kd_x", subset_size=1000).compute()
    assert any("subsets of 70 instead of 1000" in warning for warning in kernel.warnings)
    assert full.warnings == ()
    narrow = InceptionScore(30, splits=3)
    narrow.update(drawn(60, 30), torch.arange(60), torch.arange(60))
    assert "20 samples in each of 3 splits for 30 classes" in narrow.compute()[0].warnings[0]


@pytest.mark.parametrize("cls", [FrechetDistance, KernelDistance, PrecisionRecallDensityCoverage])
def test_constant_features_and_missing_rank_are_said(cls: type) -> None:
    metric = cls(8)
    fake, real = drawn(2, 7, 8)
    fake[:, 2:4] = 0.1
    for index, values in enumerate((fake, real)):
        metric.update(values, torch.arange(7), torch.arange(7), real=bool(index))
    (result, *_) = metric.compute()
    said = " ".join(result.warnings)
    assert "2 of 8 features are constant over the generated samples" in said
    assert "constant over the reference" not in said
    assert ("7 generated samples for 8 features" in said) == (cls is FrechetDistance)


@pytest.mark.parametrize("spec", ["kd_x", "prdc_x"])
def test_a_subset_is_seeded_and_said(spec: str) -> None:
    first = whole(spec, max_samples=50).compute()
    assert first == whole(spec, max_samples=50).compute()
    assert first != whole(spec, max_samples=50, seed=3).compute()
    assert first[0].n == 50
    assert "seeded subset of 50 of 90 generated" in first[0].warnings[0]


@pytest.mark.parametrize("offset", [1e4, 1e8])
def test_batches_far_from_zero_keep_the_frechet_distance(offset: float) -> None:
    generator = np.random.default_rng(0)
    sets = np.round(generator.normal(size=(2, 400, 4)) * 2**10) / 2**10
    sets[1] += 0.5
    metric = FrechetDistance(4)
    for values, real in zip(sets, (False, True), strict=True):
        for indices in torch.randperm(400, generator=torch.Generator().manual_seed(0)).split(32):
            batch = torch.from_numpy(values)[indices] + offset
            metric.update(batch, indices, indices, real=real)
    expected = frechet_distance_from_features(*sets)
    assert metric.compute()[0].value == pytest.approx(expected, rel=1e-6)


def test_mean_scores_take_any_number_and_clip_scores_cosines_only() -> None:
    mean = MeanScore(higher_is_better=False, names=("nll",))
    mean.update(torch.tensor([3.0, 5.0, 700.0]), torch.arange(3), torch.arange(3))
    (result,) = mean.compute()
    assert (result.name, result.value, result.higher_is_better) == ("nll", 236.0, False)
    clip = ClipScore()
    clip.update(torch.tensor([30.0]), torch.arange(1), torch.arange(1))
    assert clip.compute()[0].value is None
    assert "expected values from -1 to 1" in clip.compute()[0].warnings[0]


def test_the_clamped_clip_score_and_its_interval_end_at_zero() -> None:
    metric = ClipScore(variant="clamped")
    metric.update(-drawn(20).abs() / 10, torch.arange(20), torch.arange(20))
    (result,) = metric.compute()
    assert (result.value, result.interval.low, result.interval.high) == (0.0, 0.0, 0.0)
    assert metric.sample_rows().means == {}, "0 is not the mean of what samples scored"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FrechetDistance(0), "dim: expected a whole number of at least 1, got 0"),
        (lambda: FrechetDistance(2, groups=1), "groups: expected 0"),
        (lambda: KernelDistance(2, gamma=-1.0), "gamma: expected a number above 0"),
        (lambda: InceptionScore(1), "num_classes: expected a whole number of at least 2"),
        (lambda: PrecisionRecallDensityCoverage(2, k=True), "k: expected a whole number"),
        (lambda: ClipScore(variant="x"), "variant: expected one of"),
        (lambda: MeanScore(level=2.0), "level: expected a level between 0 and 1"),
        (lambda: FrechetDistance(2, names=("a", "b")), "names: expected 1, got 2"),
    ],
)
def test_wrong_settings_are_refused(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
