"""Inception against torch-fidelity: the same weights file, the same images, the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from evaluator.features.inception import InceptionExtractor
from evaluator.features.resize import resize_clean, resize_legacy
from tests.features.random_inception import save_random_inception

SIDES = st.integers(1, 420)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_inception(tmp_path_factory.mktemp("inception"))


def noise(height: int, width: int, *, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def peer(weights: Path, features: list[str]) -> FeatureExtractorInceptionV3:
    return FeatureExtractorInceptionV3(
        "inception-v3-compat", features, feature_extractor_weights_path=str(weights)
    )


@pytest.mark.parametrize(("height", "width"), [(32, 32), (299, 299), (256, 384)])
def test_one_pass_gives_torch_fidelitys_features_and_logits_to_the_bit(
    weights: Path, height: int, width: int
) -> None:
    images = torch.stack([noise(height, width, seed=seed) for seed in range(2)])
    ours = InceptionExtractor(id=str(weights), resize="legacy")
    got = ours.embed(torch.stack([ours.preprocess(image) for image in images]))
    with torch.inference_mode():
        features, logits = peer(weights, ["2048", "logits_unbiased"])(images)
    assert features.std() > 1e-3
    assert torch.equal(got["features"], features)
    assert torch.equal(got["logits"], logits)


def test_the_spatial_output_is_what_the_peers_block_gives(weights: Path) -> None:
    image = noise(64, 48, seed=3)
    network = peer(weights, ["2048"])
    seen: list[torch.Tensor] = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.inference_mode():
        network(image[None])
    ours = InceptionExtractor(id=str(weights), resize="legacy")
    got = ours.embed(ours.preprocess(image)[None])["spatial"].reshape(17, 17, 7)
    assert seen[0].std() > 1e-3
    # (17, 17, 7) as TensorFlow lays images out: the order of `mu_s` in published batches.
    assert torch.equal(got, seen[0][0, :7].permute(1, 2, 0))


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(0, 2**31))
def test_the_legacy_resize_is_torch_fidelitys_to_the_bit(
    height: int, width: int, seed: int
) -> None:
    image = noise(height, width, seed=seed)
    expected = interpolate_bilinear_2d_like_tensorflow1x(
        image[None].float(), size=(299, 299), align_corners=False
    )
    assert torch.equal(resize_legacy(image, 299), expected[0])


def bicubic_matrix(length: int, size: int) -> np.ndarray:
    """Rows of weights from `length` samples to `size`: Keys' cubic with a = -1/2, antialiased.

    Written from the definition: output i lies at (i + 1/2) · scale, the kernel is stretched by
    the scale where it shrinks, cut at its support, and its weights add up to one.
    """

    def keys(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return np.where(x < 1, near, np.where(x < 2, far, 0.0))

    scale = length / size
    stretch = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    places = np.arange(length) + 0.5
    weights = keys((places[None, :] - centres[:, None]) / stretch)
    return weights / weights.sum(axis=1, keepdims=True)


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(0, 2**31))
def test_the_clean_resize_is_the_antialiased_cubic_by_definition(
    height: int, width: int, seed: int
) -> None:
    image = noise(height, width, seed=seed)
    rows, columns = bicubic_matrix(height, 299), bicubic_matrix(width, 299)
    expected = (rows @ image.double().numpy() @ columns.T).clip(0, 255)
    got = resize_clean(image, 299).numpy()
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-4)


def test_the_clean_resize_shrinks_without_aliasing_and_the_legacy_one_does_not() -> None:
    stripes = torch.zeros(3, 598, 598, dtype=torch.uint8)
    stripes[:, :, 1::2] = 255  # every second column: grey from afar
    assert abs(float(resize_clean(stripes, 299)[:, :, 8:-8].mean()) - 127.5) < 0.5
    assert float(resize_legacy(stripes, 299).max()) == 0.0
