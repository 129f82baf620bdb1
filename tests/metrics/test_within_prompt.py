"""Diversity within a prompt: closed forms, brute force, and its interval on a known truth."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.errors import ConfigError, MetricError
from evaluator.metrics import WithinPromptDiversity, distances, within_prompt_diversity


def brute_force(features: np.ndarray, clusters: np.ndarray, distance: str) -> float:
    means = []
    for prompt in np.unique(clusters):
        pairs = list(combinations(features[clusters == prompt], 2))
        if pairs:
            means.append(np.mean([
                np.linalg.norm(x - y) if distance == "euclidean"
                else 1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y)
                for x, y in pairs
            ]))  # fmt: skip
    return float(np.mean(means))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), distance=st.sampled_from(["cosine", "euclidean"]))
def test_it_is_the_mean_over_pairs_then_over_prompts(seed: int, distance: str) -> None:
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(40, 5))
    clusters = generator.integers(0, 15, size=40)
    value = within_prompt_diversity(features, clusters, distance=distance)
    assert value == pytest.approx(brute_force(features, clusters, distance), rel=1e-9)
    order = generator.permutation(40)
    again = within_prompt_diversity(features[order], clusters[order] + 7, distance=distance)
    assert again == pytest.approx(value, rel=1e-12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", 2)
        assert within_prompt_diversity(features, clusters, distance=distance) == pytest.approx(
            value
        )


def test_copies_are_no_distance_apart_and_opposites_two() -> None:
    same = np.repeat(np.random.default_rng(0).normal(size=(4, 9)), 3, axis=0)
    prompts = np.arange(12) // 3
    for distance in ("cosine", "euclidean"):
        assert within_prompt_diversity(same, prompts, distance=distance) == 0.0
    assert within_prompt_diversity([[1.0, 0.0], [-2.0, 0.0]], [0, 0]) == pytest.approx(2.0)
    ends = np.array([[0.0, 0.0], [3.0, 4.0]])
    assert within_prompt_diversity(ends, [0, 0], distance="euclidean") == 5.0


def test_prompts_with_one_image_are_left_out_and_counted() -> None:
    metric = WithinPromptDiversity(2, distance="euclidean")
    values = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [3.0, 0.0], [9.0, 9.0]])
    metric.update(values, torch.arange(5), torch.tensor([4, 4, 2, 2, 8]))
    (result,) = metric.compute()
    assert (result.value, result.n, result.details["n_prompts"]) == (2.0, 4, 2.0)
    assert "1 of 3 prompts have one image" in result.warnings[0]
    # t with 1 degree of freedom, standard error 1
    assert result.interval.high == pytest.approx(2.0 + 12.7062, abs=1e-3)


def test_no_prompt_with_two_images_gives_no_number() -> None:
    metric = WithinPromptDiversity(2)
    metric.update(torch.eye(2), torch.arange(2), torch.arange(2))
    assert metric.compute()[0].value is None
    assert "generate more images for each prompt" in metric.compute()[0].warnings[0]
    with pytest.raises(MetricError, match="clusters: expected a prompt with at least 2 samples"):
        within_prompt_diversity(np.eye(2), [0, 1])


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="distance: expected one of cosine, euclidean, got 'l1'"):
        within_prompt_diversity(np.eye(2), [0, 0], distance="l1")
    with pytest.raises(MetricError, match="clusters: expected 2 prompt numbers"):
        within_prompt_diversity(np.eye(2), [0])
    with pytest.raises(MetricError, match="features other than zero"):
        within_prompt_diversity(np.zeros((2, 2)), [0, 0])


def test_95_percent_intervals_cover_the_known_mean() -> None:
    """Images of a prompt differ by normal noise of its own scale: E‖x − y‖ = 2 E|s| / sqrt(pi)."""
    generator = np.random.default_rng(0)
    inside, truth = 0, 2.0 * 1.5 / np.sqrt(np.pi)
    for _ in range(300):
        scale = generator.uniform(0.5, 2.5, size=40).repeat(3)
        metric = WithinPromptDiversity(1, distance="euclidean")
        values = torch.from_numpy(scale * generator.normal(size=120))[:, None]
        metric.update(values, torch.arange(120), torch.arange(120) // 3)
        interval = metric.compute()[0].interval
        inside += interval.low <= truth <= interval.high
    assert 0.91 <= inside / 300 <= 0.98
