"""Diversity within a prompt as a torchmetrics `Metric`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from evaluator.errors import MetricError
from evaluator.metrics.accumulators import FAKE, GatheredMetric
from evaluator.metrics.intervals import (
    COVERS_MEAN,
    Floats,
    Integers,
    Replicates,
    interval_over_prompts,
    jackknife_groups,
    jackknife_interval,
)
from evaluator.metrics.options import DISTANCES, one_of, whole_number
from evaluator.metrics.results import Result
from evaluator.metrics.within_prompt import prompt_diversity


class WithinPromptDiversity(GatheredMetric):
    """Mean pairwise distance of the images of a prompt, over prompts.

    The interval is a t-interval over the prompts' means.
    """

    default_names = ("diversity",)
    directions = (True,)

    def __init__(self, dim: int, *, distance: str = "cosine", **kwargs: Any) -> None:
        """`distance` as for `within_prompt_diversity`; `kwargs` as for `PlannedMetric`."""
        self.dim = whole_number("dim", dim, at_least=1)
        self.distance = one_of("distance", distance, choices=DISTANCES)
        super().__init__(shape=(self.dim,), **kwargs)

    def _results(self) -> tuple[Result, ...]:
        values, clusters = self._in_plan_order(FAKE), self._clusters_in_plan_order()
        try:
            found = prompt_diversity(values, clusters.cpu().numpy(), distance=self.distance)
        except MetricError as error:
            return self._refused(str(error), len(values))
        count = len(found.prompts)
        if not count:
            return self._refused(
                "expected a prompt with at least 2 generated samples, got 0 among "
                f"{len(values)} samples; generate more images for each prompt",
                len(values),
            )
        interval, warnings = interval_over_prompts(found.distances, found.prompts, level=self.level)
        if interval is not None:
            interval = replace(
                interval, replicates=self._replicates(found.distances, found.prompts)
            )
        if found.num_single:
            warnings.append(
                f"{found.num_single} of {count + found.num_single} prompts have one image, which "
                "has no distance, and are left out"
            )
        details = {"n_prompts": float(count)}
        return (
            self._result(
                float(found.distances.mean()),
                found.num_images,
                interval=interval,
                warnings=warnings,
                details=details,
            ),
        )

    def _replicates(self, distances: Floats, prompts: Integers) -> Replicates | None:
        """The mean without each group of prompts, by which two runs are compared."""
        groups = np.unique(jackknife_groups(prompts, seed=self.seed), return_inverse=True)[1]
        sums, sizes = np.bincount(groups, weights=distances), np.bincount(groups)
        left_out = (distances.sum() - sums) / np.maximum(len(distances) - sizes, 1)
        if len(sizes) < 2:
            return None
        mean = float(distances.mean())
        return jackknife_interval(mean, left_out, sizes, covers=COVERS_MEAN).replicates
