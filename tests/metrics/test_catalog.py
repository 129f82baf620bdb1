"""The table of metrics: names, defaults, suggestions, and that asking it costs nothing."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys

import pytest

import evaluator.metrics
from evaluator.errors import ConfigError
from evaluator.metrics.catalog import quantity_of, resolve
from evaluator.metrics.families import DEFAULT_EXTRACTORS, FAMILIES, NAMES, PROPER_NAMES


@pytest.mark.parametrize(
    ("name", "extractor", "input_", "reference", "results"),
    [
        ("fid", "inception", "features", True, ("fid",)),
        ("kid", "inception", "features", True, ("kid", "kid_full")),
        ("fid_infinity", "inception", "features", True, ("fid_infinity",)),
        ("fd_infinity_dinov2", "dinov2", "features", True, ("fd_infinity_dinov2",)),
        ("sfid", "inception", "spatial", True, ("sfid",)),
        ("sfd_x", "x", "spatial", True, ("sfd_x",)),
        ("mifid", "inception", "features", True, ("mifid",)),
        ("mifd_digits", "digits", "features", True, ("mifd_digits",)),
        ("inception_score", "inception", "logits", False, ("inception_score",)),
        ("fd_dinov2", "dinov2", "features", True, ("fd_dinov2",)),
        ("fd_inception", "inception", "features", True, ("fid",)),
        ("kd_digits", "digits", "features", True, ("kd_digits", "kd_full_digits")),
        ("is_digits", "digits", "logits", False, ("is_digits",)),
        ("clip_score", "clip", "text_cosine", False, ("clip_score",)),
        ("clip_score_siglip", "siglip", "text_cosine", False, ("clip_score_siglip",)),
        ("cmmd", "clip", "features", True, ("cmmd",)),
        ("cmmd_digits", "digits", "features", True, ("cmmd_digits",)),
        ("vendi_digits", "digits", "features", False, ("vendi_digits",)),
        ("authpct_digits", "digits", "features", True, ("authpct_digits",)),
        ("realism_digits", "digits", "features", True, ("realism_digits",)),
        ("diversity_clip", "clip", "features", False, ("diversity_clip",)),
        ("rp_score", "sscd", "features", True, ("rp_score_sscd",)),
        ("memorized_fraction", "sscd", "features", True,
         ("memorized_fraction_sscd", "generalization_score_sscd")),
        ("fls_dinov2", "dinov2", "features", True, ("fls_dinov2",)),
        ("ct_dinov2", "dinov2", "features", True, ("ct_dinov2",)),
        ("prdc_digits", "digits", "features", True,
         ("precision_digits", "recall_digits", "density_digits", "coverage_digits")),
        ("prdc", "inception", "features", True,
         ("precision_inception", "recall_inception", "density_inception", "coverage_inception")),
    ],
)  # fmt: skip
def test_a_name_says_metric_and_extractor(
    name: str, extractor: str, input_: str, reference: bool, results: tuple[str, ...]
) -> None:
    plan = resolve(name)
    assert (plan.extractor, plan.input, plan.reference) == (extractor, input_, reference)
    assert plan.result_names == results
    assert len(plan.higher_is_better) == len(results)


def test_the_extractor_may_stand_beside_the_name() -> None:
    assert resolve("fd", "dinov2").result_names == ("fd_dinov2",)
    assert resolve("prdc", "dinov2", {"k": 3}).options["k"] == 3
    assert resolve("fd_dinov2", "dinov2").extractor == "dinov2"


def test_a_variant_is_part_of_the_name() -> None:
    assert resolve("clip_score", None, {"variant": "w2.5"}).result_names == ("clip_score_w2.5",)


@pytest.mark.parametrize("name", PROPER_NAMES)
def test_proper_names_mean_inception_features_only(name: str) -> None:
    with pytest.raises(ConfigError, match=r"expected the extractor 'inception', got 'dinov2'; wri"):
        resolve(name, "dinov2")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fdi", {}, "did you mean 'fd'"),
        ("inception_scor", {}, "did you mean 'inception_score'"),
        ("fdd_digits", {}, "did you mean 'fd_digits'"),
        ("fid_digits", {}, "did you mean 'fd_digits'"),
        ("fid_infinity_dinov2", {}, "did you mean 'fd_infinity_dinov2'"),
        ("fid_infinty", {}, "did you mean 'fid_infinity'"),
        ("presision_recall_dinov2", {}, "choose one of them"),
        ("vqa", {}, "expected one of fid, fid_infinity"),
        ("fd", {}, "expected an extractor, got none; write fd_<extractor>"),
        ("fd_", {}, "metric: expected one of"),
        ("kid", {"subsetsize": 5}, "got 'subsetsize'; did you mean 'subset_size'"),
        ("kid", {"subset_size": 1}, "subset_size: expected a whole number of at least 2, got 1"),
        ("prdc", {"inclusive": "yes"}, "inclusive: expected true or false, got 'yes'"),
        ("fid", {"groups": 1}, "groups: expected 0"),
        ("fid", {"level": 95}, "level: expected a level between 0 and 1"),
        ("mifid", {"cosine_distance_eps": 2}, "expected a number above 0 and at most 1, got 2"),
        ("fid_infinity", {"num_points": 2}, "num_points: expected a whole number of at least 3"),
        ("clip_score", {"variant": "max"}, "variant: expected one of mean, clamped"),
    ],
)
def test_mistakes_are_named_with_their_remedy(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(name, None, options)


def test_all_faults_of_the_options_come_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        resolve("kid", None, {"gama": 1.0, "num_subsets": 0, "coef": float("nan")})
    assert len(raised.value.faults) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_and_the_classes_agree(family: str) -> None:
    entry = FAMILIES[family]
    plan = resolve(family, DEFAULT_EXTRACTORS.get(family, "x"))
    metric = plan.build(7)
    module, _, name = entry.target.partition(":")
    cls = getattr(importlib.import_module(module), name)
    assert type(metric) is cls
    assert metric.names == plan.result_names
    assert cls.directions == entry.higher_is_better
    defaults = cls(7) if entry.dimension else cls()
    for option, value in plan.options.items():
        for built in (metric, defaults):
            held = built.kernel if option in ("degree", "gamma", "coef") else built
            assert getattr(held, option) == value, option


@pytest.mark.parametrize("name", ["fls_x", "ct_x", "prdc_x"])
def test_a_plan_says_whether_it_needs_held_out_samples(name: str) -> None:
    assert resolve(name).held_out == (name != "prdc_x")


def test_plans_travel_between_processes() -> None:
    plan = resolve("kd_x")
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_every_public_name_is_there() -> None:
    for name in evaluator.metrics.__all__:
        assert getattr(evaluator.metrics, name) is not None
    assert set(evaluator.metrics.__all__) <= set(dir(evaluator.metrics))
    with pytest.raises(AttributeError, match="no attribute 'frechet_distanc'"):
        _ = evaluator.metrics.frechet_distanc


def test_asking_the_table_imports_nothing_heavy() -> None:
    script = (
        "import sys, evaluator.metrics; from evaluator.metrics.catalog import resolve;"
        f"[resolve(n, None if n in {(*PROPER_NAMES,)!r} else 'x') for n in {NAMES!r}];"
        "heavy = {'torch', 'torchmetrics', 'numpy', 'scipy'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("name", "extractor", "names", "one_metric"),
    [
        ("kid", "inception", ("kid_full", "kid"), True),
        ("kd_full_digits", "digits", ("kd_full_digits", "kd_digits"), True),
        ("fid_infinity", "inception", ("fid", "fid_infinity"), False),
        ("generalization_score_sscd", "sscd",
         ("memorized_fraction_sscd", "generalization_score_sscd"), True),
        ("kid", "digits", ("kid",), True),
        ("sfid", "inception", ("sfid",), True),
        ("mine", None, ("mine",), True),
    ],
)  # fmt: skip
def test_results_that_speak_of_one_quantity_name_the_one_of_least_noise_first(
    name, extractor, names, one_metric
):
    assert quantity_of(name, extractor) == (names, one_metric)
