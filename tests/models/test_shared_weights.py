"""What is loaded once serves several ways of sampling, each as if it had been loaded for it."""

from __future__ import annotations

import pytest
import torch

from evaluator.config.schema import GenerationConfig, OptimalDenoiserModelConfig
from evaluator.errors import ConfigError
from evaluator.models.optimal_model import OptimalDenoiserModel
from evaluator.records import Prompt

CONFIG = OptimalDenoiserModelConfig(kind="optimal_denoiser", source="unused")


class Counted:
    """Four grey training images that count how often they are read."""

    keys = ("a", "b", "c", "d")
    fingerprint = "f" * 64
    reads = 0

    def image(self, key: str) -> torch.Tensor:
        self.reads += 1
        return torch.full((3, 8, 8), 60 * self.keys.index(key), dtype=torch.uint8)


def test_another_way_of_sampling_is_as_if_loaded_anew() -> None:
    training = Counted()
    first = OptimalDenoiserModel(CONFIG, GenerationConfig(steps=2), training)
    shared = first.for_generation(GenerationConfig(steps=5))
    assert training.reads == 4
    anew = OptimalDenoiserModel(CONFIG, GenerationConfig(steps=5), training)
    assert shared.fingerprint == anew.fingerprint != first.fingerprint
    prompts = [Prompt("p", None), Prompt("q", None)]
    for a, b in zip(
        shared.generate(prompts, [0, 0], [1, 2]), anew.generate(prompts, [0, 0], [1, 2])
    ):
        assert torch.equal(a, b)  # type: ignore[arg-type]


def test_a_way_of_sampling_that_does_not_fit_is_refused() -> None:
    model = OptimalDenoiserModel(CONFIG, GenerationConfig(steps=2), Counted())
    with pytest.raises(ConfigError, match="expected 8, the size of the training images"):
        model.for_generation(GenerationConfig(height=16))
