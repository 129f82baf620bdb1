"""The numbers mean something: better images have a lower Fréchet distance, at equal n."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from evaluator.demo import architecture
from evaluator.demo.classifier import DigitsExtractor
from evaluator.demo.quality import HeldOut, held_out, sample
from evaluator.metrics import (
    frechet_distance_from_features,
    inception_score,
    precision_recall_density_coverage,
)


@pytest.fixture(scope="module")
def halves() -> tuple[HeldOut, HeldOut]:
    """Two disjoint sets of real images, of one size."""
    split = held_out()
    size = len(split.keys) // 2 * 2
    first, second = slice(0, size, 2), slice(1, size, 2)
    return (
        HeldOut(split.keys[first], split.captions[first], split.images[first]),
        HeldOut(split.keys[second], split.captions[second], split.images[second]),
    )


@pytest.fixture(scope="module")
def extractor() -> DigitsExtractor:
    return DigitsExtractor()


def outputs(images: Tensor, extractor: DigitsExtractor, name: str = "features") -> Tensor:
    return extractor.embed(torch.stack([extractor.preprocess(image) for image in images]))[name]


@pytest.fixture(scope="module")
def generated(halves: tuple[HeldOut, HeldOut]) -> Tensor:
    """The shipped model's images for the captions of the second half."""
    return sample(halves[1].captions, halves[1].keys)


def test_distance_orders_real_model_blurred_and_untrained(
    halves: tuple[HeldOut, HeldOut], generated: Tensor, extractor: DigitsExtractor
) -> None:
    reference, other = halves
    untrained = architecture.pipeline(
        architecture.vae(), architecture.text_encoder(), architecture.unet()
    )
    untrained.set_progress_bar_config(disable=True)
    sets = {
        "real": other.images,
        "model": generated,
        "blurred": gaussian_blur(other.images, kernel_size=7, sigma=2.0),
        "wrong tint": other.images[:, [1, 2, 0]],
        "untrained": sample(other.captions, other.keys, pipeline=untrained, steps=5),
    }
    assert {len(images) for images in sets.values()} == {len(reference.images)}
    real = outputs(reference.images, extractor)
    distance = {
        name: frechet_distance_from_features(real, outputs(images, extractor))
        for name, images in sets.items()
    }
    assert distance["real"] == min(distance.values()), distance
    for worse in ("blurred", "wrong tint", "untrained"):
        assert distance["model"] < distance[worse], distance


def test_a_collapsed_model_loses_recall_and_class_diversity(
    halves: tuple[HeldOut, HeldOut], generated: Tensor, extractor: DigitsExtractor
) -> None:
    reference, _ = halves
    real = outputs(reference.images, extractor)
    collapsed = generated[:8].repeat_interleave(len(generated) // 8 + 1, 0)[: len(generated)]
    whole, narrow = (
        precision_recall_density_coverage(real, outputs(images, extractor), k=5)
        for images in (generated, collapsed)
    )
    assert narrow.recall < whole.recall
    assert narrow.coverage < whole.coverage
    scores = [
        inception_score(outputs(images, extractor, "digit_logits"), splits=1)
        for images in (generated, collapsed)
    ]
    assert scores[1].mean < scores[0].mean
