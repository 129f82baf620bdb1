"""The table of built-in metrics: what each needs, what it returns, and what may be set.

`evaluator.metrics.catalog` looks names up in it. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from evaluator.metrics.options import (
    CLIP_VARIANTS,
    DISTANCES,
    confidence,
    cosine_threshold,
    entropy_order,
    finite_number,
    flag,
    group_count,
    one_of,
    optional_positive,
    positive_number,
    share,
    whole_number,
)

INCEPTION = "inception"
"""The extractor that FID, KID and the Inception score are defined on."""


@dataclass(frozen=True, slots=True)
class Option:
    """One setting of a metric."""

    default: Any
    check: Callable[[str, Any], Any]
    """(name, value) → the value; raises ConfigError."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One built-in computation."""

    target: str
    """Dotted class, `module:attr`."""
    input: str
    """`features`, `logits`, another output of the extractor, or a per-sample score's column."""
    reference: bool
    """Whether real samples are needed."""
    result_names: tuple[str, ...]
    """Names of the results, with `{extractor}` to fill in."""
    higher_is_better: tuple[bool | None, ...]
    """Direction of each result."""
    options: Mapping[str, Option]
    """What a configuration may set."""
    dimension: str | None = "dim"
    """The constructor's name for the width of the input; None for scores."""
    proper_names: tuple[str, ...] = ()
    """Names of the results on the extractor `proper_extractor`."""
    proper_extractor: str = INCEPTION
    held_out: bool = False
    """Whether real samples that the model has not seen are needed too."""
    takes_moments: bool = False
    """Whether published moments can stand for the reference's samples."""


_COMMON = {
    "groups": Option(20, group_count),
    "seed": Option(0, partial(whole_number, at_least=0)),
    "level": Option(0.95, confidence),
}
_NO_GROUPS = {"seed": _COMMON["seed"], "level": _COMMON["level"]}
_SAME = {"threshold": Option(0.6, cosine_threshold)}
_MAX_SAMPLES = {"max_samples": Option(50_000, partial(whole_number, at_least=2))}

FAMILIES: Mapping[str, CatalogEntry] = {
    "fd": CatalogEntry(
        target="evaluator.metrics.frechet_metric:FrechetDistance",
        input="features",
        reference=True,
        result_names=("fd_{extractor}",),
        higher_is_better=(False,),
        options=_COMMON,
        proper_names=("fid",),
        takes_moments=True,
    ),
    "fd_infinity": CatalogEntry(
        target="evaluator.metrics.extrapolation_metric:FrechetInfinity",
        input="features",
        reference=True,
        result_names=("fd_infinity_{extractor}",),
        higher_is_better=(False,),
        options={
            "num_points": Option(15, partial(whole_number, at_least=3)),
            "subsample_reference": Option(False, flag),
            **_COMMON,
        },
        proper_names=("fid_infinity",),
        takes_moments=True,
    ),
    "sfd": CatalogEntry(
        target="evaluator.metrics.frechet_metric:FrechetDistance",
        input="spatial",
        reference=True,
        result_names=("sfd_{extractor}",),
        higher_is_better=(False,),
        options=_COMMON,
        proper_names=("sfid",),
        takes_moments=True,
    ),
    "mifd": CatalogEntry(
        target="evaluator.metrics.penalty_metric:Mifid",
        input="features",
        reference=True,
        result_names=("mifd_{extractor}",),
        higher_is_better=(False,),
        options={
            "cosine_distance_eps": Option(0.1, share),
            **_MAX_SAMPLES,
            **_COMMON,
        },
        proper_names=("mifid",),
    ),
    "kd": CatalogEntry(
        target="evaluator.metrics.set_metrics:KernelDistance",
        input="features",
        reference=True,
        result_names=("kd_{extractor}", "kd_full_{extractor}"),
        higher_is_better=(False, False),
        options={
            "num_subsets": Option(100, partial(whole_number, at_least=1)),
            "subset_size": Option(1000, partial(whole_number, at_least=2)),
            "degree": Option(3, partial(whole_number, at_least=1)),
            "gamma": Option(None, optional_positive),
            "coef": Option(1.0, finite_number),
            **_MAX_SAMPLES,
            **_COMMON,
        },
        proper_names=("kid", "kid_full"),
    ),
    "is": CatalogEntry(
        target="evaluator.metrics.set_metrics:InceptionScore",
        input="logits",
        reference=False,
        result_names=("is_{extractor}",),
        higher_is_better=(True,),
        options={"splits": Option(10, partial(whole_number, at_least=1)), **_COMMON},
        dimension="num_classes",
        proper_names=("inception_score",),
    ),
    "prdc": CatalogEntry(
        target="evaluator.metrics.neighbours_metric:PrecisionRecallDensityCoverage",
        input="features",
        reference=True,
        result_names=(
            "precision_{extractor}",
            "recall_{extractor}",
            "density_{extractor}",
            "coverage_{extractor}",
        ),
        higher_is_better=(True, True, True, True),
        options={
            "k": Option(5, partial(whole_number, at_least=1)),
            "inclusive": Option(False, flag),
            **_MAX_SAMPLES,
            **_COMMON,
        },
    ),
    "cmmd": CatalogEntry(
        target="evaluator.metrics.cmmd_metric:Cmmd",
        input="features",
        reference=True,
        result_names=("cmmd_{extractor}",),
        higher_is_better=(False,),
        options={
            "sigma": Option(10.0, positive_number),
            "scale": Option(1000.0, positive_number),
            **_MAX_SAMPLES,
            **_COMMON,
        },
        proper_names=("cmmd",),
        proper_extractor="clip",
    ),
    "vendi": CatalogEntry(
        target="evaluator.metrics.vendi_metric:VendiScore",
        input="features",
        reference=False,
        result_names=("vendi_{extractor}",),
        higher_is_better=(True,),
        options={"q": Option(1.0, entropy_order), **_COMMON},
    ),
    "authpct": CatalogEntry(
        target="evaluator.metrics.authenticity_metric:AuthPct",
        input="features",
        reference=True,
        result_names=("authpct_{extractor}",),
        higher_is_better=(True,),
        options={**_MAX_SAMPLES, **_COMMON},
    ),
    "realism": CatalogEntry(
        target="evaluator.metrics.realism_metric:Realism",
        input="features",
        reference=True,
        result_names=("realism_{extractor}",),
        higher_is_better=(True,),
        options={
            "k": Option(3, partial(whole_number, at_least=1)),
            **_MAX_SAMPLES,
            **_NO_GROUPS,
        },
    ),
    "memorized_fraction": CatalogEntry(
        target="evaluator.metrics.memorization_metric:MemorizedFraction",
        input="features",
        reference=True,
        result_names=("memorized_fraction_{extractor}", "generalization_score_{extractor}"),
        higher_is_better=(False, True),
        options={**_SAME, **_NO_GROUPS},
    ),
    "rp_score": CatalogEntry(
        target="evaluator.metrics.memorization_metric:RpScore",
        input="features",
        reference=True,
        result_names=("rp_score_{extractor}",),
        higher_is_better=(None,),
        options={**_SAME, **_NO_GROUPS},
    ),
    "diversity": CatalogEntry(
        target="evaluator.metrics.within_prompt_metric:WithinPromptDiversity",
        input="features",
        reference=False,
        result_names=("diversity_{extractor}",),
        higher_is_better=(True,),
        options={
            "distance": Option("cosine", partial(one_of, choices=DISTANCES)),
            **_NO_GROUPS,
        },
    ),
    "fls": CatalogEntry(
        target="evaluator.metrics.held_out_metrics:Fls",
        input="features",
        reference=True,
        held_out=True,
        result_names=("fls_{extractor}",),
        higher_is_better=(True,),
        options={"max_samples": Option(5_000, partial(whole_number, at_least=2)), **_COMMON},
    ),
    "ct": CatalogEntry(
        target="evaluator.metrics.held_out_metrics:CtScore",
        input="features",
        reference=True,
        held_out=True,
        result_names=("ct_{extractor}",),
        higher_is_better=(None,),
        options={
            "cells": Option(3, partial(whole_number, at_least=1)),
            "components": Option(64, partial(whole_number, at_least=1)),
            **_COMMON,
        },
    ),
    "clip_score": CatalogEntry(
        target="evaluator.metrics.score_metrics:ClipScore",
        input="text_cosine",
        reference=False,
        result_names=("clip_score_{extractor}",),
        higher_is_better=(True,),
        options={
            "variant": Option("mean", partial(one_of, choices=CLIP_VARIANTS)),
            "level": _COMMON["level"],
        },
        dimension=None,
        proper_names=("clip_score",),
        proper_extractor="clip",
    ),
}
"""Prefix of a spec string → the computation."""

ONE_QUANTITY: tuple[tuple[tuple[str, int], ...], ...] = (
    (("kd", 1), ("kd", 0)),
    (("fd", 0), ("fd_infinity", 0)),
    (("memorized_fraction", 0), ("memorized_fraction", 1)),
)
"""Results, as computation and place, that speak of one quantity of the same features.

The first is the one to test and to count: it has the least noise. A mean over random subsets is the
distance of all samples with the noise of drawing them; a distance extrapolated to infinitely many
samples is that of these, less a bias that runs of one size share; one share is 1 minus the other.
"""

PROPER_NAMES: Mapping[str, str] = {
    "fid": "fd",
    "fid_infinity": "fd_infinity",
    "sfid": "sfd",
    "mifid": "mifd",
    "kid": "kd",
    "inception_score": "is",
}
"""Names that fix the extractor to Inception → the computation."""

DEFAULT_EXTRACTORS: Mapping[str, str] = {
    "prdc": INCEPTION,
    "clip_score": "clip",
    "cmmd": "clip",
    "memorized_fraction": "sscd",
    "rp_score": "sscd",
}
"""Computations that may be asked for without an extractor."""

NAMES = (*PROPER_NAMES, *FAMILIES)
"""Every name that a configuration may use, before `_<extractor>`."""
