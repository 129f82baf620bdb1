"""Metrics: pure functions over features, logits and scores, and what accumulates for them.

The functions take numpy arrays or torch tensors and return Python floats. The classes are
torchmetrics `Metric`s that gather samples from any number of processes and call the functions.
`evaluator.metrics.catalog` says which metrics there are without importing torch; every other
name here is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluator.metrics.accumulators import PlannedMetric as PlannedMetric
    from evaluator.metrics.authenticity import authpct as authpct
    from evaluator.metrics.authenticity_metric import AuthPct as AuthPct
    from evaluator.metrics.catalog import MetricPlan as MetricPlan
    from evaluator.metrics.catalog import resolve as resolve
    from evaluator.metrics.cmmd_metric import Cmmd as Cmmd
    from evaluator.metrics.copying import ct_score as ct_score
    from evaluator.metrics.diversity import vendi_score as vendi_score
    from evaluator.metrics.entropy import InceptionScoreValue as InceptionScoreValue
    from evaluator.metrics.entropy import inception_score as inception_score
    from evaluator.metrics.extrapolation import FrechetExtrapolation as FrechetExtrapolation
    from evaluator.metrics.extrapolation import fid_infinity as fid_infinity
    from evaluator.metrics.extrapolation_metric import FrechetInfinity as FrechetInfinity
    from evaluator.metrics.frechet import frechet_distance as frechet_distance
    from evaluator.metrics.frechet import (
        frechet_distance_from_features as frechet_distance_from_features,
    )
    from evaluator.metrics.frechet_metric import FrechetDistance as FrechetDistance
    from evaluator.metrics.gaussian import cmmd as cmmd
    from evaluator.metrics.held_out_metrics import CtScore as CtScore
    from evaluator.metrics.held_out_metrics import Fls as Fls
    from evaluator.metrics.intervals import Interval as Interval
    from evaluator.metrics.intervals import clustered_mean_interval as clustered_mean_interval
    from evaluator.metrics.intervals import clustered_share_interval as clustered_share_interval
    from evaluator.metrics.intervals import grouped_jackknife as grouped_jackknife
    from evaluator.metrics.intervals import jackknife_groups as jackknife_groups
    from evaluator.metrics.intervals import jackknife_interval as jackknife_interval
    from evaluator.metrics.kernel import KernelDistanceValue as KernelDistanceValue
    from evaluator.metrics.kernel import kernel_distance as kernel_distance
    from evaluator.metrics.kernel import kernel_distance_unbiased as kernel_distance_unbiased
    from evaluator.metrics.likelihood import fls as fls
    from evaluator.metrics.memorization import generalization_score as generalization_score
    from evaluator.metrics.memorization import memorized_fraction as memorized_fraction
    from evaluator.metrics.memorization import rp_score as rp_score
    from evaluator.metrics.memorization_metric import MemorizedFraction as MemorizedFraction
    from evaluator.metrics.memorization_metric import RpScore as RpScore
    from evaluator.metrics.moments import Moments as Moments
    from evaluator.metrics.neighbours import NeighbourScores as NeighbourScores
    from evaluator.metrics.neighbours import (
        precision_recall_density_coverage as precision_recall_density_coverage,
    )
    from evaluator.metrics.neighbours_metric import (
        PrecisionRecallDensityCoverage as PrecisionRecallDensityCoverage,
    )
    from evaluator.metrics.penalty import mifid as mifid
    from evaluator.metrics.penalty_metric import Mifid as Mifid
    from evaluator.metrics.published import ReferenceMoments as ReferenceMoments
    from evaluator.metrics.published import read_moments as read_moments
    from evaluator.metrics.published import write_moments as write_moments
    from evaluator.metrics.realism import realism_scores as realism_scores
    from evaluator.metrics.realism_metric import Realism as Realism
    from evaluator.metrics.results import Result as Result
    from evaluator.metrics.results import SampleRows as SampleRows
    from evaluator.metrics.score_metrics import ClipScore as ClipScore
    from evaluator.metrics.score_metrics import MeanScore as MeanScore
    from evaluator.metrics.scores import clip_score as clip_score
    from evaluator.metrics.set_metrics import InceptionScore as InceptionScore
    from evaluator.metrics.set_metrics import KernelDistance as KernelDistance
    from evaluator.metrics.vendi_metric import VendiScore as VendiScore
    from evaluator.metrics.within_prompt import within_prompt_diversity as within_prompt_diversity
    from evaluator.metrics.within_prompt_metric import (
        WithinPromptDiversity as WithinPromptDiversity,
    )

_HOME = {
    "AuthPct": "authenticity_metric",
    "ClipScore": "score_metrics",
    "Cmmd": "cmmd_metric",
    "CtScore": "held_out_metrics",
    "Fls": "held_out_metrics",
    "FrechetDistance": "frechet_metric",
    "FrechetExtrapolation": "extrapolation",
    "FrechetInfinity": "extrapolation_metric",
    "InceptionScore": "set_metrics",
    "InceptionScoreValue": "entropy",
    "Interval": "intervals",
    "KernelDistance": "set_metrics",
    "KernelDistanceValue": "kernel",
    "MeanScore": "score_metrics",
    "MemorizedFraction": "memorization_metric",
    "MetricPlan": "catalog",
    "Mifid": "penalty_metric",
    "Moments": "moments",
    "NeighbourScores": "neighbours",
    "PlannedMetric": "accumulators",
    "PrecisionRecallDensityCoverage": "neighbours_metric",
    "ReferenceMoments": "published",
    "Realism": "realism_metric",
    "Result": "results",
    "RpScore": "memorization_metric",
    "SampleRows": "results",
    "VendiScore": "vendi_metric",
    "WithinPromptDiversity": "within_prompt_metric",
    "authpct": "authenticity",
    "clip_score": "scores",
    "clustered_mean_interval": "intervals",
    "clustered_share_interval": "intervals",
    "cmmd": "gaussian",
    "fid_infinity": "extrapolation",
    "ct_score": "copying",
    "fls": "likelihood",
    "frechet_distance": "frechet",
    "frechet_distance_from_features": "frechet",
    "generalization_score": "memorization",
    "grouped_jackknife": "intervals",
    "inception_score": "entropy",
    "jackknife_groups": "intervals",
    "jackknife_interval": "intervals",
    "kernel_distance": "kernel",
    "kernel_distance_unbiased": "kernel",
    "mifid": "penalty",
    "precision_recall_density_coverage": "neighbours",
    "read_moments": "published",
    "memorized_fraction": "memorization",
    "realism_scores": "realism",
    "resolve": "catalog",
    "rp_score": "memorization",
    "vendi_score": "diversity",
    "write_moments": "published",
    "within_prompt_diversity": "within_prompt",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "catalog"]
