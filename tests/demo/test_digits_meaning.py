"""The numbers mean something: better images have a lower Fréchet distance, at equal n."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from evaluator.demo import architecture
from evaluator.demo.classifier import DigitsExtractor
from evaluator.demo.digits import load
from evaluator.demo.quality import HeldOut, held_out, sample
from evaluator.metrics import (
    frechet_distance_from_features,
    inception_score,
    precision_recall_density_coverage,
)


@pytest.fixture(scope="module")
def held() -> HeldOut:
    """The held-out images, which no model was trained on."""
    return held_out()


@pytest.fixture(scope="module")
def reference(held: HeldOut) -> Tensor:
    """As many training images: a disjoint set of real images."""
    training = load("train").images
    chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
    return torch.from_numpy(training)[chosen[: len(held.keys)]]


@pytest.fixture(scope="module")
def extractor() -> DigitsExtractor:
    return DigitsExtractor()


def outputs(images: Tensor, extractor: DigitsExtractor, name: str = "features") -> Tensor:
    return extractor.embed(torch.stack([extractor.preprocess(image) for image in images]))[name]


@pytest.fixture(scope="module")
def generated(held: HeldOut) -> Tensor:
    """The shipped model's images for the held-out captions."""
    return sample(held.captions, held.keys)


def test_distance_orders_real_model_blurred_and_untrained(
    held: HeldOut, reference: Tensor, generated: Tensor, extractor: DigitsExtractor
) -> None:
    untrained = architecture.pipeline(
        architecture.vae(), architecture.text_encoder(), architecture.unet()
    )
    untrained.set_progress_bar_config(disable=True)
    sets = {
        "real": held.images,
        "model": generated,
        # A pixel of the source is 4 pixels wide here: these blur by half of one, and by one.
        "blurred": gaussian_blur(held.images, kernel_size=31, sigma=2.0),
        "blurred more": gaussian_blur(held.images, kernel_size=31, sigma=4.0),
        "wrong tint": held.images[:, [1, 2, 0]],
        "untrained": sample(held.captions, held.keys, pipeline=untrained, steps=3),
    }
    assert {len(images) for images in sets.values()} == {len(reference)}
    real = outputs(reference, extractor)
    distance = {
        name: frechet_distance_from_features(real, outputs(images, extractor))
        for name, images in sets.items()
    }
    assert distance["real"] == min(distance.values()), distance
    for worse in ("blurred", "blurred more", "wrong tint", "untrained"):
        assert distance["model"] < distance[worse], distance
    assert distance["blurred"] < distance["blurred more"]


def test_a_collapsed_model_loses_recall_and_class_diversity(
    reference: Tensor, generated: Tensor, extractor: DigitsExtractor
) -> None:
    real = outputs(reference, extractor)
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
